"""The record of what should exist: applications, models and their versions, kept across restarts."""
