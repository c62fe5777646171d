-- How far an operation has come, in the words of whoever carries it out; empty where it has no order to go by.
ALTER TABLE operations ADD COLUMN checkpoint TEXT NOT NULL DEFAULT '';
