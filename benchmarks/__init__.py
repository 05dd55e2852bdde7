"""What measures, side by side with peers, and what was measured."""
