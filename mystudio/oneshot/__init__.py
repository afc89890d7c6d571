"""What one-shot engines share: training data with measurements, and a training run that can be resumed."""
