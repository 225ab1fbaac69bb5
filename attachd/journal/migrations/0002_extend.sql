-- The new size that an extend was asked for, in GiB; NULL: Cinder's own.

ALTER TABLE operations ADD COLUMN size_gib INTEGER;
