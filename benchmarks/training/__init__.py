"""What `train.py` runs its studies with: workers that take turns in processes, and what the results amount to."""
