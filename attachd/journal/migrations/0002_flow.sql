-- The old style of attaching, by Cinder's volume actions, beside the new one.

ALTER TABLE attachments ADD COLUMN flow TEXT NOT NULL DEFAULT 'attachments';
ALTER TABLE attachments ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0;
