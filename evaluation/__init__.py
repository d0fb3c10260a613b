"""How good the answers are: measured out of fold, weights fitted, confidence calibrated, all of it on a page."""
