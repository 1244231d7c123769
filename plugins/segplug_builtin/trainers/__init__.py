"""Trainers: one loop, and its settings for long and short trainings."""
