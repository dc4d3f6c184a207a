"""lrfr: five papers on knowledge distillation for low-resolution face recognition, under one protocol."""

__version__ = "0.10.0"
