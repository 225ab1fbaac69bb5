-- More kinds of attachments.

ALTER TABLE attachments ADD COLUMN persistent INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attachments ADD COLUMN shareable INTEGER NOT NULL DEFAULT 0;

-- A disk that another hand plugged, as its guest's XML names it; NULL for what attachd plugged.
ALTER TABLE attachments ADD COLUMN adopted_path TEXT;
ALTER TABLE attachments ADD COLUMN adopted_serial TEXT;

-- What was released holds neither its guest's device name nor its volume, as what was detached.
DROP INDEX live_device;
DROP INDEX live_volume;
CREATE UNIQUE INDEX live_device ON attachments (guest_id, device)
    WHERE state NOT IN ('detached', 'released');
CREATE UNIQUE INDEX live_volume ON attachments (guest_id, volume_id)
    WHERE state NOT IN ('detached', 'released');

-- The new size that an extend was asked for, in GiB; NULL: Cinder's own.

ALTER TABLE operations ADD COLUMN size_gib INTEGER;

-- The old style of attaching, by Cinder's volume actions, beside the new one.

ALTER TABLE attachments ADD COLUMN flow TEXT NOT NULL DEFAULT 'attachments';
ALTER TABLE attachments ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0;
