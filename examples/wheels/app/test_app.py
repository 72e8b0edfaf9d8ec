import json
import unittest
from io import BytesIO

from app import app


def get(path):
    """The status and the text of an answer."""
    told = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.input": BytesIO()}
    text = b"".join(app(environ, lambda status, headers, *_: told.append(status)))
    return told[0], text


class Hello(unittest.TestCase):
    def test_a_name_is_greeted(self):
        status, text = get("/hello/moon")
        self.assertEqual((status, json.loads(text)), ("200 OK", {"hello": "moon"}))

    def test_nothing_else_is_there(self):
        self.assertEqual(get("/")[0], "404 Not Found")


if __name__ == "__main__":
    unittest.main()
