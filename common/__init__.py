"""What the gateway and the shards share. Imports nothing else of ours."""
