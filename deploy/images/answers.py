"""`python answers.py PORT PATH`: whether this container answers 200 there. HEALTHCHECK of the images, which have no curl."""

import http.client
import sys

port, path = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)  # no proxy, whatever the environment says
connection.request("GET", path)
sys.exit(connection.getresponse().status != 200)
