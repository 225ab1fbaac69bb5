-- More kinds of attachments.

ALTER TABLE attachments ADD COLUMN persistent INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attachments ADD COLUMN shareable INTEGER NOT NULL DEFAULT 0;
