"""The operations that decide the speed of training, each beside the plain PyTorch that says what it computes."""
