"""What tools/bench measures attachd by."""
