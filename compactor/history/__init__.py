"""Looking back: replay to a past moment, differences, and the story of an order."""
