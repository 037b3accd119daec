"""The object host: runs the app and keeps its objects."""
