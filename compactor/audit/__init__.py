"""Questions to the past: any state that was, the story of any order, and proof that nothing was changed."""
