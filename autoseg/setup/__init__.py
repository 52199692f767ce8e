"""What stands between a command and typed settings."""
