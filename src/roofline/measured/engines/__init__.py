"""What engines say of themselves: pages of metrics and logs of their start."""
