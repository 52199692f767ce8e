"""What is optimised and measured: losses, metrics, cost."""
