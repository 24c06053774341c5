"""The generator: the committed files are what it makes, and its orders are as varied as promised."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
from decimal import Decimal

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
import generate  # noqa: E402
import jsontext  # noqa: E402

FILES = ("events.jsonl", "stock.json", "cards.json")


def run(folder, *arguments):
    paths = [f"--{pathlib.Path(name).stem}={folder}/{name}" for name in FILES]
    subprocess.run([sys.executable, HERE / "generate.py", *paths, *arguments], check=True, stdout=subprocess.PIPE)
    return {name: pathlib.Path(folder, name).read_bytes() for name in FILES}


class Generate(unittest.TestCase):
    def test_the_committed_files_are_what_the_generator_makes(self):
        with tempfile.TemporaryDirectory() as folder:
            made = run(folder)
        for name in FILES:
            self.assertEqual(made[name], (HERE / name).read_bytes(), f"{name} is stale: run generate.py and commit")
        self.assertEqual(made["events.jsonl"].count(b"\n"), 1000)

    def test_a_seed_gives_its_own_orders_and_any_number_of_them(self):
        with tempfile.TemporaryDirectory() as folder:
            first, again = run(folder, "--count=50", "--seed=7"), run(folder, "--count=50", "--seed=7")
            other = run(folder, "--count=50", "--seed=8")
            one = run(folder, "--count=1")
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertEqual(one["events.jsonl"].count(b"\n"), 1)

    def test_totals_are_exact_and_orders_are_varied(self):
        events, stock, cards = generate.generate(2000, 3)
        places = jsontext.load((HERE / "places.json").read_bytes())
        seen = set()
        for event in events:
            data = event["data"]
            self.assertEqual(sum(item["qty"] * item["price"] for item in data["items"]), data["total"])
            self.assertLessEqual({item["sku"] for item in data["items"]}, stock.keys())
            self.assertIn(data["customer"]["id"], cards)
            self.assertEqual(data["orderId"], event["subject"])
            pattern = places.get(data["address"]["country"])
            served = pattern and re.fullmatch(pattern, data["address"].get("postalCode", ""))
            seen.add("served" if served else "not served")
            seen.add("order" if data["total"] > 0 else "free")
            seen.add("cents" if data["total"] % 1 else "whole")
            skus = [item["sku"] for item in data["items"]]
            seen.add("same SKU twice" if len(set(skus)) < len(skus) else "different SKUs")
            seen.update(name for name in ("note", "gift") if name in data)
        expected = {"served", "not served", "order", "free", "cents", "whole", "same SKU twice", "different SKUs"}
        self.assertEqual(seen, expected | {"note", "gift"})
        self.assertEqual(len({event["id"] for event in events}), len(events))

    def test_written_numbers_are_read_back_with_all_their_digits(self):
        for text in ("0.10", "12.5", "100", "1234567890123.45"):
            self.assertEqual(jsontext.dump(jsontext.load(text)), text)
        self.assertEqual(jsontext.load("0.1") + jsontext.load("0.2"), Decimal("0.3"))
        for text in ("NaN", "1e999999999999999999999", "{"):
            with self.assertRaises(ValueError):
                jsontext.load(text)


if __name__ == "__main__":
    unittest.main()
