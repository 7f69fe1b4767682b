"""The console in headless Chromium: driven, tested and pictured."""
