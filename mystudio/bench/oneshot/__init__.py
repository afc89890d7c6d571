"""One-shot reenactment, measured: a person of one or a few photos, driven by others, against the true frames."""
