"""Tables on a GPU: placement, batching and calibration."""
