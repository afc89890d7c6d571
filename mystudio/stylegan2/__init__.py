"""StyleGAN2 in plain torch, with the official parameter names."""
