"""Many settings of one method: grids, searches, and named studies, as rows of a family."""
