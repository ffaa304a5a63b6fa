"""Other programs that make the same two outputs from the same logs, each as fast as it can be made."""
