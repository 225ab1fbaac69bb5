"""What `tools/lab` is made of: the image, the virtual machine, and what is done in it."""
