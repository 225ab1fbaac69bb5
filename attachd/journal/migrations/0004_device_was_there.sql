-- Somebody else had brought the LUN's device before attachd connected it: not attachd's to take away
-- unless it was proven to be the volume's.

ALTER TABLE attachments ADD COLUMN device_was_there INTEGER NOT NULL DEFAULT 0;
