"""Kinds of answers that public reports name, in words and numbers of our own, for `math` and `choice`.

Each row is a text and what is read in it; None stands for no answer. The rows of ../shared/cases are tests where
those files lie beside the repository.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdlib.settings import Dataset
from rdlib.tasks.answers import Found, extract, find, rule_shares
from rdlib.tasks.plain import plain
from rdlib.tasks.prompts import Prompt, zero_shot
from rdlib.tasks.spelled import value

CASES = Path(__file__).parents[1].parent / "shared" / "cases" / "answers.jsonl"
KINDS = ("math", "choice")  # `phrase` has tests of its own

MATH = {
    "units and currencies": [
        ("The answer is 1,234.5 km/h.", "1234.5"),
        ("The answer is 3.5 m^2.", "3.5"),
        ("\\boxed{12\\ \\text{km/h}}", "12"),
        ("\\boxed{9.8\\,\\text{m/s}^2}", "9.8"),
        ("#### ¥1200", "1200"),
        ("#### 1200¥", "1200"),
        ("The answer is 45 €.", "45"),
        ("The answer is EUR 45.50.", "45.5"),
        ("#### Rs. 500", "500"),
        ("#### Rs.500", "500"),
        ("The answer is USD 1,500.", "1500"),
        ("#### 12 34 567", "12"),
    ],
    "thousands and powers of ten": [
        ("The answer is 12\xa0345.", "12345"),
        ("The answer is 12\u2009345.67.", "12345.67"),
        ("#### 1 234 567", "1234567"),
        ("#### 1_000_000", "1000000"),
        ("The answer is 1.2 x 10^5.", "120000"),
        ("\\boxed{1.2 \\times 10^{5}}", "120000"),
        ("\\boxed{1.2e5}", "120000"),
        ("The answer is 1.2*10^5 m.", "120000"),
        ("\\boxed{6.02 \\cdot 10^{23}}", "602000000000000000000000"),
    ],
    "words and scales": [
        ("The answer is three quarters.", "0.75"),
        ("The answer is a dozen.", "12"),
        ("The answer is twenty-five dollars.", "25"),
        ("The answer is minus seven.", "-7"),
        ("The answer is zero.", "0"),
        ("The answer is one hundred and five.", "105"),
        ("#### 5k", "5000"),
        ("#### $3.2bn", "3200000000"),
        ("#### 2 crore", "20000000"),
        ("#### ₹1.5 lakh", "150000"),
        ("The answer is $4 million.", "4000000"),
        ("#### 3M", "3000000"),
        ("#### 3 M", "3"),
        ("#### 5m", "5"),
        ("#### $5m", "5000000"),
    ],
    "several values, inequalities, intervals": [
        ("The answer is ±3.", None),
        ("\\boxed{\\pm 3}", None),
        ("\\boxed{3 \\pm 0.1}", None),
        ("The answer is 2 or 3.", None),
        ("\\boxed{x = 2 \\text{ or } x = 9}", None),
        ("The answer is x = 2 or x = 9.", None),
        ("The answer is 2 and 9.", None),
        ("\\boxed{x \\geq 5}", None),
        ("The answer is x ≥ 5.", None),
        ("\\boxed{x>5}", None),
        ("The answer is x > 5.", None),
        ("\\boxed{5 < x < 7}", None),
        ("\\boxed{(2, \\infty)}", None),
        ("\\boxed{[0,1]}", None),
        ("\\boxed{\\left(\\frac{1}{2}, 3\\right)}", None),
    ],
    "roots, pi, letters, ratios, bases": [
        ("\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}", None),
        ("\\boxed{\\sqrt{2}}", None),
        ("\\boxed{3\\pi}", None),
        ("\\boxed{\\frac{\\pi}{6}}", None),
        ("\\boxed{e^2}", None),
        ("\\boxed{2i}", None),
        ("\\boxed{3 - 4i}", None),
        ("\\boxed{\\infty}", None),
        ("The answer is DNE.", None),
        ("\\boxed{\\text{DNE}}", None),
        ("The ratio is 3:4.", None),
        ("The answer is 3:4.", None),
        ("\\boxed{3 : 4}", None),
        ("The answer is 3 to 4.", None),
        ("\\boxed{1011_2}", None),
        ("The answer is 3 R 2.", None),
        ("The answer is 3 remainder 2.", None),
    ],
    "layout and equations": [
        ("#### 5\nWait, that is wrong.\n#### 7", "7"),
        ("| Item | Count |\n|---|---|\n| eggs | 12 |\n\nThe answer is 12.", "12"),
        ("```\n18\n```", "18"),
        ("```python\nprint(3*6)\n```\nOutput: 18", "18"),
        ("\\[\n18\n\\]", "18"),
        ("\\[ x = 18 \\]", "18"),
        ("Answer: 12 apples (not 13)", "12"),
        ("The answer is 12 = 3*4", "12"),
        ("The answer is 12, since 3 * 4 = 12.", "12"),
        ("The answer is 12 because 3 + 9 = 12.", "12"),
        ("The answer is: 3 * 4 = 12", "12"),
    ],
    "refusals": [
        ("I can't help with that. Call 911.", None),
        ("I'm sorry, but I can't answer question 5.", None),
        ("It cannot be determined from the 3 facts.", None),
        ("There is not enough information to determine the 2 values.", None),
    ],
    "other languages": [
        ("La respuesta es 42.", "42"),
        ("La réponse est 42 euros pour 3 jours.", "42"),
        ("Die Antwort ist 42.", "42"),
        ("答案：42", "42"),
        ("答案是42个，分3天", "42"),
        ("答えは42です。", "42"),
        ("정답: 42", "42"),
        ("Ответ: 42", "42"),
    ],
    "marks of thinking": [
        ("<think>It is 5</think>\n\\boxed{6}", "6"),
        ("<thinking>5</thinking> 6", "6"),
        ("<reflection>#### 5</reflection>#### 6", "6"),
        ("◁think▷5◁/think▷ #### 6", "6"),
        ("<|begin_of_thought|>#### 5<|end_of_thought|><|begin_of_solution|>#### 6<|end_of_solution|>", "6"),
        ("5 #### 5</thought>#### 6", "6"),
        ("<reasoning>#### 5", None),
    ],
    "bullets and bold": [
        ("The answer is **-5**.", "-5"),
        ("The answer is: **$1,250**", "1250"),
        ("Answer: - 12", "-12"),
        ("**Answer:**\n* 12 apples", "12"),
        ("Answer:\n1) 12 apples", "12"),
        ("The answer is:\n\n1. 12", "12"),
    ],
    "compound units": [
        ("The answer is 5 ft 3 in.", None),
        ("The answer is 5'3\".", None),
        ("The answer is 2h 30m.", None),
        ("The answer is 1 hour and 30 minutes.", None),
        ("The answer is 2 hours.", "2"),
    ],
    "expressions": [
        ("\\boxed{2^{10}}", "1024"),
        ("\\boxed{3!}", None),
        ("\\boxed{\\binom{5}{2}}", None),
        ("\\boxed{\\log 5}", None),
        ("\\boxed{|3|}", "3"),
        ("\\boxed{a+b}", None),
        ("\\boxed{2x}", None),
        ("\\boxed{12n}", None),
        ("\\boxed{y = 2x + 1}", None),
        ("\\boxed{f(x) = 3}", "3"),
    ],
    "words": [
        ("\\boxed{\\text{Monday}}", None),
        ("He has 3 apples. The answer is Monday.", None),
        ("The answer is yes, since 5 > 3.", None),
        ("\\boxed{\\text{Yes}}", None),
        ("#### No solution", None),
        ("3 + 4 = 7\n#### no real solutions", None),
    ],
    "fractions and LaTeX": [
        ("\\boxed{1.5\\%}", "1.5"),
        ("#### 12.5 percent", "12.5"),
        ("#### 33 1/3%", "100/3"),
        ("#### 33⅓", "100/3"),
        ("#### ¾", "0.75"),
        ("#### 2 ½", "2.5"),
        ("#### -½", "-0.5"),
        ("\\boxed{-\\frac34}", "-0.75"),
        ("\\boxed{\\frac{3}{4} \\text{ of the cake}}", "0.75"),
        ("\\boxed{0.\\overline{6}}", "2/3"),
        ("\\boxed{0.1\\overline{6}}", "1/6"),
        ("\\boxed{$18$}", "18"),
        ("\\boxed{\\$18}", "18"),
        ("\\boxed{\\textbf{18}}", "18"),
        ("\\boxed{\\mathrm{18}}", "18"),
        ("\\boxed{18\\text{ dollars}}", "18"),
        ("\\boxed{18 \\, \\text{cm}^3}", "18"),
        ("\\boxed{\\text{18 dollars}}", "18"),
        ("\\boxed{10!}", None),
        ("The answer is 42!", "42"),
        ("\\boxed{1,234,567}", "1234567"),
        ("\\boxed{12,34,567}", None),
        ("Final answer: $\\dfrac{7}{12}$ hours", "7/12"),
        ("The final answer is $\\frac{7}{12}$. I hope it is correct.", "7/12"),
        ("The answer is 7/12.", "7/12"),
        ("The answer is 3 3/4 cups.", "3.75"),
        ("The answer is $2.50 per cup.", "2.5"),
    ],
    "times, sentences, signs": [
        ("The answer is 12 p.m.", "12"),
        ("The answer is 3:30.", "3:30"),
        ("Tom is 12 years old.", "12"),
        ("So x ≈ 3.14.", "3.14"),
        ("So the price is between $3 and $5.", None),
        ("Therefore, the roots are 2 and 9.", None),
        ("The answer is 3.0×10^8 m/s", "300000000"),
        ("The answer is 3×10⁸ m/s.", "300000000"),
        ("The answer is -1.5e-3.", "-0.0015"),
        ("Answer: approximately 3,500", "3500"),
        ("Answer: about $3.5k", "3500"),
        ("Answer: ~ 3.5 million", "3500000"),
        ("The answer is over 9000.", "9000"),
        ("The answer is May 5.", None),
        ("The answer is the 5th of May.", "5"),
        ("#### 5th", "5"),
    ],
    "tuples and JSON": [
        ("\\boxed{5, 7}", None),
        ("\\boxed{5 \\text{ or } 7}", None),
        ("\\boxed{5;7}", None),
        ("\\boxed{\\{5\\}}", "5"),
        ("\\boxed{(5)}", "5"),
        ("\\boxed{x=5, y=7}", None),
        ("\\boxed{x = 5}", "5"),
        ("\\boxed{(x, y) = (5, 7)}", None),
        ('{"answer": [5, 7]}', None),
        ('{"answer": [5]}', "5"),
        ('{"answer": 1e3}', "1000"),
        ('{"answer": "x=5"}', "5"),
        ('{"answer": -3}', "-3"),
        ('{"final_answer": 12.50}', "12.5"),
        ("{'answer': '12'}", "12"),
    ],
    "forms that compete": [
        ("Thus, the answer is 5.\n\nNote: the answer is rounded to 2 decimals.", "5"),
        ("\\boxed{5}\n\nThis answer is correct to 2 decimals.", "5"),
        ("#### 18\n\nThe answer is 18 because 2 * 9 = 18.", "18"),
    ],
    "the rest": [
        ("The answer is 42.0.", "42"),
        ("#### 42.", "42"),
        ("####  42 \n", "42"),
        ("The answer is: 42 (forty-two).", "42"),
        ("Answer: forty-two (42)", "42"),
        ("The answer is 10 - 3.", "7"),
        ("The answer is (3 + 4) * 2.", "14"),
        ("\\boxed{3 \\times 4 = 12}", "12"),
        ("\\boxed{12 = 3 \\times 4}", "12"),
        ("\\boxed{\\frac{12}{5} = 2.4}", "2.4"),
        ("\\boxed{5 \\text{ km} = 5000 \\text{ m}}", "5"),
        ("The total is 5 km, which is 5000 m.", "5"),
    ],
    "more of all these": [
        ("The answer is 12 apples and 3 pears.", None),
        ("So she has 18 apples and 3 pears left.", "18"),
        ("The answer is 5 times as many.", "5"),
        ("#### 3x faster", "3"),
        ("The answer is 2x.", None),
        ("The answer is 15 dollars and 50 cents.", None),
        ("The answer is $15 and 50 cents.", None),
        ("The answer is 30 mph.", "30"),
        ("The answer is 30 m/s.", "30"),
        ("#### 60 km/h", "60"),
        ("#### 12 per hour", "12"),
        ("#### 12/hour", "12"),
        ("The answer is 100,000,000.", "100000000"),
        ("The answer is 1.5 times.", "1.5"),
        ("The answer is 25 % of the total.", "25"),
        ("The answer is 3/4 of the cake.", "0.75"),
        ("The answer is 3/4ths.", "0.75"),
        ("#### 2/3 cup", "2/3"),
        ("The answer is 0.5, or 1/2.", "0.5"),
        ("The answer is 1/2 or 0.5.", "0.5"),
        ("The answer is 12 (or 12.0).", "12"),
        ("The answer is 6 ÷ 2.", "3"),
        ("The answer is 2³.", "8"),
        ("The answer is 5².", "25"),
        ("\\boxed{10^{-3}}", "0.001"),
        ("\\boxed{10^-3}", "0.001"),
        ("The answer is 1:2 ratio", None),
        ("The answer is 12:30 p.m.", "12:30"),
        ("The answer is 9 a.m.", "9"),
        ("The answer is from 3 to 5.", None),
        ("The answer is 3–5.", "3"),
        ("\\boxed{3-5}", None),
        ("\\boxed{3 \\text{ to } 5}", None),
        ("\\boxed{[3, 5]}", None),
        ("\\boxed{3 \\le x \\le 5}", None),
        ("\\boxed{x \\in [3,5]}", None),
        ("\\boxed{\\emptyset}", None),
        ("\\boxed{\\text{None}}", None),
        ("\\boxed{-\\infty}", None),
        ("\\boxed{2 + \\sqrt{3}}", None),
        ("\\boxed{1 + \\frac{\\pi}{2}}", None),
        ("\\boxed{\\frac{x}{2}}", None),
        ("\\boxed{\\frac{2}{x+1}}", None),
        ("\\boxed{n(n+1)/2}", None),
        ("\\boxed{6k + 1}", None),
        ("\\boxed{k = 6}", "6"),
        ("\\boxed{\\theta = 30^\\circ}", "30"),
        ("\\boxed{30^\\circ}", "30"),
        ("\\boxed{\\angle A = 30^\\circ}", "30"),
        ("\\boxed{P = 0.25}", "0.25"),
        ("\\boxed{P(A) = \\frac{1}{4}}", "0.25"),
        ("\\boxed{A = 5, B = 3}", None),
        ("\\boxed{\\text{(A) } 5}", "5"),
        ("\\boxed{\\text{A}}", None),
        ("\\boxed{\\text{B) 12}}", "12"),
        ("The answer is B) 12.", "12"),
        ("The answer is (B) 12.", "12"),
        ("The answer is option (C), 15.", "15"),
        ("Answer: $ 5 $", "5"),
        ("Answer: $$5$$", "5"),
        ("Answer: \\(5\\)", "5"),
        ("Answer: \\( \\frac{5}{2} \\)", "2.5"),
        ("Answer:5", "5"),
        ("answer is:5", "5"),
        ("Answer: '5'", "5"),
        ("Answer = 5", "5"),
        ("The answer will be 5.", "5"),
        ("The answer was 5.", "5"),
        ("The answer comes out to 5.", "5"),
        ("The answer comes to 5.", "5"),
        ("So we get 5 as the answer.", "5"),
        ("5 is the answer.", "5"),
        ("Therefore the answer is, of course, 5.", "5"),
        ("The correct answer is $5 (five dollars).", "5"),
        ("The answer is five (5).", "5"),
        ("The answer is No. 5.", "5"),
        ("The answer is #5.", "5"),
        ("The answer is n = 5.", "5"),
        ("The answer is exactly $5.00 USD.", "5"),
        ("The answer is 5 USD.", "5"),
        ("The answer is 5,000 JPY.", "5000"),
        ("#### 5000円", "5000"),
        ("#### 5元", "5"),
        ("#### 100 руб.", "100"),
        ("The answer is 1.234,56 €, as 2,50 € + ...", "1234.56"),
        ("The answer is 1 234,56.", "1234.56"),
        ("The answer is 3,14.", None),
        ("#### 0,5", None),
        ("The answer is 1,23.", None),
        ("After 5 years she has $1,200. Hope that helps!", "1200"),
        ("She has 12.\n\nLet me know if you have any questions about the 3 steps.", "12"),
        ("Total = 12\nCheck: 4 * 3 = 12 ✓.", "12"),
        ("12\n\nExplanation: 3 * 4", "12"),
        ("So, 12.", "12"),
        ("= 12", "12"),
        ("x = 12", "12"),
        ("x=12, y=3", None),
        ("**12 apples**", "12"),
        ("$12$", "12"),
        ("$$x = 12$$", "12"),
        ("12 apples, 3 pears", "12"),
        ("The answer is 12\n\n#### Explanation\nSince 3*4", "12"),
        ("#### Answer\n12", "12"),
        ("#### Solution\n12 apples", "12"),
        ("### Answer: 12", "12"),
        ("## 12", "12"),
        ("#### 12\n\n#### Sources\n1. Book", "12"),
        ("#### 12 apples\n#### 3 pears", "3"),
        ("The answer is unknown.", None),
        ("The answer is not determinable.", None),
        ("Answer: N/A", None),
        ("Answer: -", None),
        ("Answer: ?", None),
        ("Answer: None of the above", None),
        ("#### none", None),
        ("#### null", None),
        ("#### unknown", None),
        ("#### ?", None),
        ("The number of eggs is unknown, so 5 cannot be right.", None),
        ("We need more information about the 3 boxes.", None),
        ("不能确定3个数。", None),
        ("Es kann nicht bestimmt werden, da 3 fehlt.", None),
        ("I do not know the answer to question 3.", None),
        ("No answer.", None),
        ("The answer is infinitely many.", None),
        ("The equation has no solution, since 3 != 4.", None),
        ("\\boxed{\\text{There is no solution}}", None),
        ("\\boxed{\\text{all real numbers}}", None),
        ("\\boxed{\\mathbb{R}}", None),
        ("\\boxed{x}", None),
        ("\\boxed{?}", None),
        ("\\boxed{ }", None),
        ("\\boxed{...}", None),
        ("The answer is 5e.", None),
        ("The answer is 3a.", None),
        ("The answer is 12b.", None),
        ("The answer is 4 sqrt 2.", None),
        ("The answer is 4√2.", None),
        ("The answer is √2.", None),
        ("The answer is 2π.", None),
        ("The answer is π/2.", None),
        ("The answer is 6.28 (2π).", "6.28"),
        ("The answer is approximately 6.28, i.e. 2π.", "6.28"),
        ("The answer is 2π ≈ 6.28.", "6.28"),
        ("The area is 25π.", None),
        ("The area is 25π ≈ 78.54.", "78.54"),
        ("The length is √50 = 7.07.", "7.07"),
        ("So x = √16 = 4.", "4"),
        ("So the area is 4π square cm.", None),
        ("The answer is x² + 1.", None),
        ("The answer is 2x + 3y = 5.", None),
        ("The equation is y = 2x + 3.", None),
        ("So the inequality is x > 5.", None),
        ("Thus (3, 4) is the point.", None),
        ("The point is (3, 4).", None),
        ("The vector is [1, 2, 3].", None),
        ("The set is {1, 2}.", None),
        ("The interval is [2, 5).", None),
        ("The complex number is 3 + 4i.", None),
    ],
}
LETTERED = 10
METALS = ("iron oxide", "iron", "chalk", "zinc", "None of the above")
LENGTHS = ("40 km", "4 km", "44 km", "1,000 km")
LISTS = ("I only", "I and II only", "II and III", "I, II and III")
CHOICES = [
    ("ANSWER: b", LETTERED, "B"),
    ("The answer is (c)", LETTERED, "C"),
    ("the answer is c.", LETTERED, "C"),
    ("**c**", LETTERED, "C"),
    ("c) zinc", LETTERED, "C"),
    ("(c) zinc", LETTERED, "C"),
    ("The answer is a matter of taste", LETTERED, None),
    ("Option b is correct.", LETTERED, "B"),
    ("option (b)", LETTERED, "B"),
    ("The correct option is b.", LETTERED, "B"),
    ("Ａ", LETTERED, "A"),
    ("The answer is Ｂ.", LETTERED, "B"),
    ("Answer: （Ｃ）", LETTERED, "C"),
    ("The answer is В.", LETTERED, None),
    ("答案：B", LETTERED, "B"),
    ("正确答案是 C。", LETTERED, "C"),
    ("应选D", LETTERED, "D"),
    ("选项A不对，选B", LETTERED, "B"),
    ("Réponse : (D)", LETTERED, "D"),
    ("La respuesta correcta es la opción C.", LETTERED, "C"),
    ("Die richtige Antwort ist (C).", LETTERED, "C"),
    ("정답: C", LETTERED, "C"),
    ("Ответ: C", LETTERED, "C"),
    ("Resposta: A", LETTERED, "A"),
    ("الإجابة: C", LETTERED, "C"),
    ("The answer is not A but C.", LETTERED, "C"),
    ("The answer is both A and B.", LETTERED, None),
    ("The answer is A or B.", LETTERED, None),
    ("Either A or B.", LETTERED, None),
    ("The answer is (A) or (B).", LETTERED, "A"),
    ("Neither A nor B.", LETTERED, None),
    ("The answer is zinc.", METALS, "D"),
    ("Zinc", METALS, "D"),
    ("zinc.", METALS, "D"),
    ("So it is iron oxide.", METALS, "A"),
    ("The answer is iron.", METALS, "B"),
    ("The answer is iron, since it rusts.", METALS, "B"),
    ("The answer is none of the above.", METALS, "E"),
    ("\\boxed{\\text{chalk}}", METALS, "C"),
    ('{"answer": "zinc"}', METALS, "D"),
    ("The answer is (D) iron.", METALS, "D"),
    ("The answer is copper.", METALS, None),
    ("The correct option is zinc.", METALS, "D"),
    ("The correct answer is **zinc**.", METALS, "D"),
    ("#### zinc", METALS, "D"),
    ("The answer is 40 km.", LENGTHS, "A"),
    ("The answer is 40.", LENGTHS, "A"),
    ("The answer is 1000 km.", LENGTHS, "D"),
    ("Answer: 4", LENGTHS, "B"),
    ("The answer is 5.", LENGTHS, None),
    ("\\boxed{44}", LENGTHS, "C"),
    ("The answer is I and II only.", LISTS, "B"),
    ("The answer is I, II and III.", LISTS, "D"),
    ("The answer is I only.", LISTS, "A"),
    ("The answer is (E).", METALS[:4], None),
    ("Answer: F", METALS, None),
    ("I would go with (B).", LETTERED, "B"),
    ("I'd choose option C.", LETTERED, "C"),
    ("My pick: (D)", LETTERED, "D"),
    ("So we select (A).", LETTERED, "A"),
    ("We can eliminate (A) and (B), leaving (C).", LETTERED, "C"),
    ("(A) is incorrect. (B) is incorrect. (C) is correct.", LETTERED, "C"),
    ("Choice D is the best answer.", LETTERED, "D"),
    ("The best choice is D, as A is wrong.", LETTERED, "D"),
    ("Only B is true.", LETTERED, "B"),
    ("A is false, B is true, C is false.", LETTERED, "B"),
    ("Statement B is false. The answer is (C).", LETTERED, "C"),
    ("<think>B?</think>C", LETTERED, "C"),
    ("<thought>The answer is B", LETTERED, None),
    ("$\\boxed{\\mathrm{C}}$", LETTERED, "C"),
    ("\\boxed{(C)}", LETTERED, "C"),
    ("\\boxed{\\textbf{(C)}}", LETTERED, "C"),
    ("\\boxed{C. zinc}", LETTERED, "C"),
    ("The answer is (B). Wait, the answer is (D).", LETTERED, "D"),
    ("The answer is \\boxed{B}. Hmm, no. The answer is \\boxed{C}.", LETTERED, "C"),
    ("I cannot answer this.", LETTERED, None),
    ("None of the options fits.", LETTERED, None),
    ("The answer is D. None", LETTERED, "D"),
    ("Answer: C\n\nA is wrong since it melts.\nB is wrong.", LETTERED, "C"),
    ("B\n\nExplanation: A is cold.", LETTERED, "B"),
    ("(B)\nbecause heat rises", LETTERED, "B"),
    ("**Answer: B. The heat**", LETTERED, "B"),
    ("Answer - (B)", LETTERED, "B"),
    ("The answer would be: B", LETTERED, "B"),
    ("Final Answer: The final answer is (B). I hope it is correct.", LETTERED, "B"),
    ("The final answer is $\\boxed{B}$.", LETTERED, "B"),
    ("The vitamin is A.", LETTERED, "A"),
    ("It is vitamin C, so (A).", LETTERED, "A"),
    ("The answer is definitely C!", LETTERED, "C"),
    ("I believe the answer is C", LETTERED, "C"),
    ("I'm fairly confident it's C.", LETTERED, "C"),
    ("Hence, the correct choice is option (A).", LETTERED, "A"),
    ("Thus option (A).", LETTERED, "A"),
    ('{"answer": "b"}', LETTERED, "B"),
    ('{"answer": ["B"]}', LETTERED, "B"),
    ('{"choice": "B"}', LETTERED, "B"),
    ('{"answer": "B: zinc"}', LETTERED, "B"),
    ("answer=B", LETTERED, "B"),
    ("Answer => B", LETTERED, "B"),
    ("<answer>B</answer>", LETTERED, "B"),
    ("<answer>\n(B)\n</answer>", LETTERED, "B"),
    ("[[B]]", LETTERED, "B"),
    ("Answer: [[B]]", LETTERED, "B"),
    ("{B}", LETTERED, "B"),
    ("B:", LETTERED, "B"),
    ("Letter: B", LETTERED, "B"),
    ("The letter is B.", LETTERED, "B"),
    ("The answer is A, B.", LETTERED, "A"),
    ("Answers: A, C", LETTERED, "A"),
    ("A and B", LETTERED, None),
]
# What is read as no number, and the reason that is recorded
REASONS = [
    ("\\boxed{(2, 5)}", "several"),
    ("\\boxed{27 \\text{ and } 64}", "several"),
    ("\\boxed{x = 2 \\text{ or } x = 9}", "several"),
    ("\\boxed{[2, 5)}", "several"),
    ("The answer is 3 hours 20 minutes.", "several"),
    ("\\boxed{2\\sqrt{3}}", "no number"),
    ("\\boxed{4\\pi}", "no number"),
    ("\\boxed{3x + 2}", "no number"),
    ("\\boxed{3:4}", "no number"),
    ("The answer is > 5.", "no number"),
    ("3 + 4 = 7. The answer is Monday.", "no number"),
    ("#### It is impossible to know", "refused"),
    ("3 + 4 = 7\n#### N/A", "refused"),
    ("#### 1.234,56", "ambiguous"),
    ("<thought>The answer is 5. But wait", "unfinished"),
]
# Where two forms say an answer, the later one counts
COMPETING = [
    ("First \\boxed{2} a day. Final answer: 6", "math", Found("6", "answer_is")),
    ("#### 5\nNo: \\boxed{7}", "math", Found("7", "boxed")),
    ("\\boxed{5}, or #### 6", "math", Found("6", "hash")),
    ("\\boxed{5}, so the answer is right", "math", Found("5", "boxed")),
    ("#### 5\nThe answer is 5.", "math", Found("5", "hash")),
    ("One may think that the answer is (B). No: $\\boxed{D}$", "choice", Found("D", "boxed")),
    ("$\\boxed{D}$ it is. The answer is (D).", "choice", Found("D", "answer_is")),
]
PLAIN = [
    ("\\frac{1+1}{4}", "(1+1)/(4)"),
    ("2\\frac{1}{2}", "2 1/2"),
    ("\\frac{\\frac{1}{2}}{3}", "(1/2)/(3)"),
    ("\\dfrac{5}{\\text{6}}", "5/6"),
    ("1{,}000", "1000"),
    ("2^{n+1}", "2^(n+1)"),
    ("\\{1, 2\\}", "{1, 2}"),
    ("0.1\\overline{6}", "15/90"),
    ("₹2½", "$2 1/2"),
    ("２４", "24"),
]
WORDS = [
    ("twelve, which is 3 more than 9", "12"),
    ("minus one hundred and five", "-105"),
    ("three and a half hours", "7/2"),
    ("one million two hundred thousand", "1200000"),
    ("two thirds", "2/3"),
    ("a dozen eggs", "12"),
    ("half of it", None),
    ("one of the 3 boys", None),
    ("one-way", None),
    ("Monday", None),
]


@pytest.mark.parametrize(("text", "expected"), [row for rows in MATH.values() for row in rows])
def test_math(text, expected):
    assert extract(text, "math") == expected


@pytest.mark.parametrize(("text", "options", "expected"), CHOICES)
def test_choice(text, options, expected):
    assert extract(text, "choice", options) == expected


@pytest.mark.parametrize(("text", "reason"), REASONS)
def test_why_there_is_no_number_is_recorded(text, reason):
    assert find(text, "math") == Found(None, reason)


def test_that_both_options_are_named_is_recorded():
    assert find("The answer is both (A) and (B).", "choice") == Found(None, "several")


@pytest.mark.parametrize(("text", "kind", "found"), COMPETING)
def test_the_later_of_two_forms_counts(text, kind, found):
    assert find(text, kind) == found


@pytest.mark.parametrize(("text", "expected"), PLAIN)
def test_plain(text, expected):
    assert plain(text) == expected


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_numbers_in_words(text, expected):
    assert (None if value(text) is None else str(value(text))) == expected


def test_two_options_of_one_text_are_told_by_no_text():
    assert extract("The answer is zinc.", "choice", ("zinc", "Zinc.", "iron")) is None
    assert extract("The answer is iron.", "choice", ("zinc", "Zinc.", "iron")) == "C"


def test_no_options_are_any_letter():
    assert extract("The answer is (J).", "choice", ()) == extract("The answer is (J).", "choice") == "J"


def test_shares_of_rules_with_texts_of_options():
    assert rule_shares(["It is zinc.", "The answer is zinc."], "choice", [METALS, 2]) == {
        "option_text": 0.5,
        "none": 0.5,
    }


def test_a_prompt_keeps_the_texts_of_its_options():
    settings = Dataset(source="mmlu_pro", answer="choice", train=1, validation=1, test=1, max_tokens=9)
    prompt = zero_shot(settings, "Which is a metal?", ["chalk", "zinc"])
    assert (prompt.options, prompt.option_texts, prompt.choices) == (2, ("chalk", "zinc"), ("chalk", "zinc"))
    assert Prompt((), "", options=4).choices == 4
    assert extract("It is zinc.", "choice", prompt.choices) == "B"


def rows() -> list[dict]:
    """The rows of the cases for the kinds that are read here; none where the file is not there."""
    if not CASES.is_file():
        return []
    with CASES.open(encoding="utf-8") as lines:
        return [row for row in map(json.loads, lines) if row["kind"] in KINDS]


@pytest.mark.skipif(not CASES.is_file(), reason="the cases lie beside the repository, not in it")
def test_the_cases_are_there():
    assert len(rows()) > 500


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['kind']}-{row['verdict']}-{row['text'][:40]!r}")
def test_cases(row):
    assert extract(row["text"], row["kind"], row["options"]) in [row["right"], *row["also_right"]]
