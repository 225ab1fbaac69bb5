"""What leaves this house: the sdist, the wheel, the Debian package, the release notes."""
