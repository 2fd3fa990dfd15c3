"""What a run folder holds, as figures and words on one page."""
