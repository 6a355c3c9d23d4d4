"""Programs that compare models and losses by their metrics, most of them on planted data whose best AUC is known."""
