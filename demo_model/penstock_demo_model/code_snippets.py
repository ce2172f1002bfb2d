"""Small Python functions and what they do."""

from __future__ import annotations

# what the function does, its source
SNIPPETS = (
    ("adds two numbers", "def add(a, b):\n    return a + b"),
    ("multiplies two numbers", "def multiply(a, b):\n    return a * b"),
    ("subtracts two numbers", "def subtract(a, b):\n    return a - b"),
    ("squares a number", "def square(x):\n    return x * x"),
    ("returns the larger of two numbers", "def larger(a, b):\n    return a if a > b else b"),
    ("returns the sum of a list", "def total(numbers):\n    return sum(numbers)"),
    ("computes an average", "def average(numbers):\n    return sum(numbers) / len(numbers)"),
    ("reverses a string", "def reverse(text):\n    return text[::-1]"),
    ("checks if a number is even", "def is_even(n):\n    return n % 2 == 0"),
    ("checks if a number is odd", "def is_odd(n):\n    return n % 2 == 1"),
    ("checks for a palindrome", "def is_palindrome(text):\n    return text == text[::-1]"),
    (
        "computes a factorial",
        "def factorial(n):\n    if n == 0:\n        return 1\n    return n * factorial(n - 1)",
    ),
    (
        "computes Fibonacci numbers",
        "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
        "    return a",
    ),
    (
        "finds the greatest common divisor",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
    ),
    (
        "checks if a number is prime",
        "def is_prime(n):\n    if n < 2:\n        return False\n"
        "    return all(n % d for d in range(2, int(n ** 0.5) + 1))",
    ),
    (
        "counts the words of a text",
        "def count_words(text):\n    return len(text.split())",
    ),
    (
        "counts the vowels of a text",
        'def count_vowels(text):\n    return sum(letter in "aeiou" for letter in text.lower())',
    ),
    (
        "removes duplicates from a list",
        "def unique(items):\n    return list(dict.fromkeys(items))",
    ),
    (
        "reads a file",
        "def read_file(path):\n    with open(path) as file:\n        return file.read()",
    ),
    ("prints hello world", 'def hello():\n    print("Hello, world!")'),
    (
        "converts Celsius to Fahrenheit",
        "def to_fahrenheit(celsius):\n    return celsius * 9 / 5 + 32",
    ),
    (
        "flattens a list of lists",
        "def flatten(lists):\n    return [item for items in lists for item in items]",
    ),
    (
        "searches a sorted list",
        "def binary_search(items, target):\n    low, high = 0, len(items)\n"
        "    while low < high:\n        middle = (low + high) // 2\n"
        "        if items[middle] < target:\n            low = middle + 1\n"
        "        else:\n            high = middle\n    return low",
    ),
)
