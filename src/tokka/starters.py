"""What `tokka init` writes: a commented project file and a few rows of each kind, in two languages.

The rows show the format and are sound, so that the first run goes through; they examine nothing.

>>> PROJECT["ja"].format(name="aoba", language="ja", base_model="m.gguf", corpus="./", skip="")
"""

from __future__ import annotations

from typing import Any

Rows = tuple[dict[str, Any], ...]

PROJECT = {
    "ja": """\
# tokka の設定ファイル。すべての項目の説明は docs/guide/project-file.md にあります。
# まず `tokka check` で確かめ、`tokka run` で全部の方式を作って試験します。
name: {name}
language: {language}

# 元になるモデル: embedded:名前、フォルダー、ファイル.gguf、hub:所有者/名前、
# http://ホスト/v1#名前 のいずれか。
base_model: {base_model}

# 文書のあるフォルダー（このファイルから見た場所）。md txt html pdf docx csv tsv jsonl を読みます。
corpus: [{corpus}]
{skip}chunks: {{max_tokens: 256}}        # 引用の単位の長さ

# 試験。いまの中身は書き方の見本です。必ず自分の問題に置き換えてください。
# 見本のままの判定に意味はありません。目安は domain、retention とも 100 問以上です。
exams:
  domain:                          # 専門分野。どの方式が勝つかを決める
    path: exam/domain.jsonl
    role: domain
  retention:                       # 一般の問題。何を忘れたかを測る
    path: exam/retention.jsonl
    role: retention

# 比べる方式。base は何もしないモデルで、ほかの方式はこれと比べられます。
arms:
  base: {{}}
  few-shot:                        # examples.jsonl の例を質問の前に並べる
    prompt: {{shots: 2, shots_from: examples.jsonl}}
  rag:                             # 文書を検索し、見つかった箇所を渡す
    retrieval: {{top_k: 4}}
  # examples.jsonl に自分の会話（数百件）を入れたら、次の 2 つの # を外してください。
  # lora:                          # 会話で学習する
  #   weights: [{{finetune: {{method: lora, data: examples.jsonl}}}}]
  # lora-rag:                      # 検索した文書を読みながら学習する
  #   weights: [{{finetune: {{method: lora, data: examples.jsonl, context: retrieved}}}}]
  #   retrieval: {{top_k: 4}}

# 合格の条件: domain で対照より良く、retention の低下が 10 点（0.10）未満だと示せること。
policy: {{control: base, min_gain: 0.0, max_forgetting: 0.10, alpha: 0.05}}
""",
    "en": """\
# A tokka project. Every key is explained in docs/guide/project-file.md.
# `tokka check` looks for mistakes, `tokka run` builds and examines every arm.
name: {name}
language: {language}

# The model to start from: embedded:NAME, a folder, a file.gguf, hub:OWNER/NAME or
# http://host/v1#NAME.
base_model: {base_model}

# Folders of documents, seen from this file: md txt html pdf docx csv tsv jsonl are read.
corpus: [{corpus}]
{skip}chunks: {{max_tokens: 256}}        # the length of what can be cited

# The exams. What they hold now only shows the format: replace it with your own questions.
# A verdict on the starter rows means nothing. Aim at 100 questions or more in each.
exams:
  domain:                          # your field: decides which arm wins
    path: exam/domain.jsonl
    role: domain
  retention:                       # general questions: measures what was forgotten
    path: exam/retention.jsonl
    role: retention

# The ways to compare. base is the untouched model; every other arm is compared with it.
arms:
  base: {{}}
  few-shot:                        # rows of examples.jsonl in front of each question
    prompt: {{shots: 2, shots_from: examples.jsonl}}
  rag:                             # passages found in the documents
    retrieval: {{top_k: 4}}
  # Once examples.jsonl holds your own conversations (some hundreds), remove the # of these two.
  # lora:                          # trained on the conversations
  #   weights: [{{finetune: {{method: lora, data: examples.jsonl}}}}]
  # lora-rag:                      # trained to read retrieved passages
  #   weights: [{{finetune: {{method: lora, data: examples.jsonl, context: retrieved}}}}]
  #   retrieval: {{top_k: 4}}

# To pass: shown to be better than the control in domain, and to lose less than ten points
# (0.10) in retention.
policy: {{control: base, min_gain: 0.0, max_forgetting: 0.10, alpha: 0.05}}
""",
}

EXAMS: dict[str, dict[str, Rows]] = {
    "domain": {
        "ja": (
            {
                "id": "starter-1",
                "question": "【見本】この試験ファイルの各行には、問題がいくつ入りますか。",
                "form": "choice",
                "choices": ["一つ", "二つ", "五つ", "十"],
                "answer": "一つ",
                "topic": "見本",
                "document_ids": [],
            },
            {
                "id": "starter-2",
                "question": "【見本】四つの選択肢から一つを選ぶ形式の form には何と書きますか。",
                "form": "short",
                "answer": ["choice"],
                "topic": "見本",
                "document_ids": [],
            },
            {
                "id": "starter-3",
                "question": "【見本】一日は何時間ですか。",
                "form": "number",
                "answer": "24",
                "unit": "時間",
                "tolerance": 0,
                "topic": "見本",
                "document_ids": [],
            },
        ),
        "en": (
            {
                "id": "starter-1",
                "question": "[Starter row] How many questions stand in one line of this file?",
                "form": "choice",
                "choices": ["one", "two", "five", "ten"],
                "answer": "one",
                "topic": "starter",
                "document_ids": [],
            },
            {
                "id": "starter-2",
                "question": "[Starter row] Which form has options to choose from?",
                "form": "short",
                "answer": ["choice"],
                "topic": "starter",
                "document_ids": [],
            },
            {
                "id": "starter-3",
                "question": "[Starter row] How many minutes has an hour?",
                "form": "number",
                "answer": "60",
                "unit": "minutes",
                "tolerance": 0,
                "topic": "starter",
                "document_ids": [],
            },
        ),
    },
    "retention": {
        "ja": (
            {
                "id": "general-1",
                "question": "「大きい」の反対の言葉はどれですか。",
                "form": "choice",
                "choices": ["小さい", "高い", "重い", "早い"],
                "answer": "小さい",
                "topic": "言葉",
            },
            {
                "id": "general-2",
                "question": "水を冷やして固めると何になりますか。",
                "form": "choice",
                "choices": ["氷", "湯気", "砂", "油"],
                "answer": "氷",
                "topic": "理科",
            },
            {
                "id": "general-3",
                "question": "7 に 5 を足すといくつですか。",
                "form": "number",
                "answer": "12",
                "topic": "算数",
            },
        ),
        "en": (
            {
                "id": "general-1",
                "question": "Which word means the opposite of hot?",
                "form": "choice",
                "choices": ["cold", "tall", "loud", "round"],
                "answer": "cold",
                "topic": "language",
            },
            {
                "id": "general-2",
                "question": "What does water become when it freezes?",
                "form": "choice",
                "choices": ["ice", "steam", "sand", "oil"],
                "answer": "ice",
                "topic": "science",
            },
            {
                "id": "general-3",
                "question": "What is 7 plus 5?",
                "form": "number",
                "answer": "12",
                "topic": "arithmetic",
            },
        ),
    },
}


def _conversations(*pairs: tuple[str, str]) -> Rows:
    return tuple(
        {
            "id": f"starter-{number}",
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answered},
            ],
            "document_ids": [],
        }
        for number, (asked, answered) in enumerate(pairs, 1)
    )


EXAMPLES: dict[str, Rows] = {
    "ja": _conversations(
        ("【見本】examples.jsonl には何を書きますか。", "学ばせたい質問と答え"),
        ("【見本】答えを書くのは誰の発言ですか。", "最後の assistant"),
        ("【見本】一年は何か月ですか。", "12か月"),
        ("【見本】試験と同じ質問を入れてもよいですか。", "いいえ"),
    ),
    "en": _conversations(
        ("[Starter row] What belongs into examples.jsonl?", "questions with the answers to learn"),
        ("[Starter row] Who speaks last in an example?", "the assistant"),
        ("[Starter row] How many months has a year?", "12"),
        ("[Starter row] May an exam question be repeated here?", "no"),
    ),
}
