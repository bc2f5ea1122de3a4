"""The embedded tiny family: a base, a reasoning expert and a safety expert, trained on synthetic data."""
