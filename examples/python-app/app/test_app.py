import unittest

from app import answer


class Answer(unittest.TestCase):
    def test_a_path_and_its_query_are_told(self):
        self.assertEqual(answer("/a?b=1&b=2"), '{"path": "/a", "query": {"b": ["1", "2"]}}\n')


if __name__ == "__main__":
    unittest.main()
