"""mystudio: the personalized-generator studio (scan -> personalize -> reenact -> edit -> render -> evaluate)."""

__version__ = "0.1.0"
