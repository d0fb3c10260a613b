"""The ensemble of members that predicts a prompt, submissions, and training of learned parts."""
