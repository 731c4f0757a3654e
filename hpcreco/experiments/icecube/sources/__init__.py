"""Sources of light: what each DOM of the detector expects to see of them, and when."""
