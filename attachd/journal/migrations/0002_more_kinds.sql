-- More kinds of attachments.

ALTER TABLE attachments ADD COLUMN persistent INTEGER NOT NULL DEFAULT 1;
