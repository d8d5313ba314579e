"""What a run found, for people: a leaderboard in the terminal and one HTML file for a committee."""
