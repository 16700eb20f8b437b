"""The study: its stages, and what runs them, keeps them and starts them again."""
