module slipstream.example/reader

go 1.21
