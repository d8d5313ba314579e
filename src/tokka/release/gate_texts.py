"""What the gate says, in English and Japanese: the figure, the limit, and what to do next.

>>> TEXTS["speed fail"].en.format(figure="2.1", limit="1")
'speed: 2.1 seconds per answer; at most 1 is allowed. Answer faster: …'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Texts(NamedTuple):
    en: str
    ja: str


AGAIN = Texts("run again: tokka run", "tokka run をもう一度実行してください")
KINDS = {"precision": Texts("precision", "適合率"), "recall": Texts("recall", "再現率")}

TEXTS: Mapping[str, Texts] = {
    # ---- the results themselves
    "results hold": Texts(
        "results: sealed, unchanged, and the same when computed again from the stored answers",
        "結果：封印どおりで変更がなく、保存された回答から計算し直しても同じです",
    ),
    "unsealed": Texts(
        "results: evidence.json is missing beside results.json, so nothing says what they were "
        "made from; {again} (nothing is asked again)",
        "結果：results.json の隣に evidence.json がなく、何から作られたか分かりません。{again}（"
        "問題を解き直すことはありません）",
    ),
    "foreign project": Texts(
        "results: they belong to the project {sealed!r}, this one is {found!r}; {again} in this "
        "project",
        "結果：プロジェクト {sealed!r} のもので、このプロジェクトは {found!r} です。このプロジェ"
        "クトで {again}",
    ),
    "project changed": Texts(
        "results: the project file says something else since (digest {sealed}, now {found}); "
        "{again}",
        "結果：そのあとプロジェクトファイルが変わりました（ダイジェスト {sealed}、現在 {found}）。"
        "{again}",
    ),
    "base changed": Texts(
        "results: the base model is another since (digest {sealed}, now {found}); put it back, "
        "or {again}",
        "結果：そのあと基盤モデルが変わりました（ダイジェスト {sealed}、現在 {found}）。元に戻す"
        "か、{again}",
    ),
    "partial": Texts(
        "results: partial, only the first {sealed} questions of each exam were asked; {again} "
        "without --limit",
        "結果：一部だけです。各試験の最初の {sealed} 問しか解いていません。--limit なしで {again}",
    ),
    "results changed": Texts(
        "results: results.json isn't the file that was written (SHA-256 {sealed}, now {found}); "
        "{again}, which writes it anew from the stored answers",
        "結果：results.json が書かれたときのものではありません（SHA-256 {sealed}、現在 {found}）。"
        "{again}。保存された回答から書き直します",
    ),
    "timings changed": Texts(
        "results: timings.json isn't the file that was written (SHA-256 {sealed}, now {found}); "
        "{again}",
        "結果：timings.json が書かれたときのものではありません（SHA-256 {sealed}、現在 {found}）。"
        "{again}",
    ),
    "exam changed": Texts(
        "exam {about}: its questions or keys are others since (digest {sealed}, now {found}); "
        "{again}",
        "試験 {about}：そのあと問題か正解が変わりました（ダイジェスト {sealed}、現在 {found}）。"
        "{again}",
    ),
    "candidate changed": Texts(
        "arm {arm}: the results are of candidate {sealed}, the one on disk is {found}; {again}",
        "方式 {arm}：結果は候補 {sealed} のものですが、手元にあるのは {found} です。{again}",
    ),
    "answers changed": Texts(
        "exam {about}: the answers of {arm} aren't those that were scored (digest {sealed}, now "
        "{found}); {again}",
        "試験 {about}：{arm} の回答が採点されたものと違います（ダイジェスト {sealed}、現在 "
        "{found}）。{again}",
    ),
    "scores changed": Texts(
        "exam {about}: the scores of {arm} beside the results aren't those that were written "
        "(SHA-256 {sealed}, now {found}); {again}",
        "試験 {about}：結果の隣にある {arm} の点数が、書かれたときのものと違います（SHA-256 "
        "{sealed}、現在 {found}）。{again}",
    ),
    "broken": Texts("results: {why}", "結果：{why}"),
    "recomputed": Texts(
        "results: computed again from the stored answers, they differ at {places}; delete "
        "results.json, and {again}, which writes it anew",
        "結果：保存された回答から計算し直すと、{places} が違います。"
        "results.json を削除して、{again}。結果を書き直します",
    ),
    "not recomputed": Texts(
        "results: they weren't computed again from the stored answers; {again}",
        "結果：保存された回答からの再計算ができていません。{again}",
    ),
    # ---- the arm and its control
    "no arm": Texts(
        "candidate: the results know no arm {arm!r}; name one of: {arms}",
        "候補：結果に方式 {arm!r} はありません。次から選んでください：{arms}",
    ),
    "is control": Texts(
        "candidate: {arm} is the control, the untouched base model that others are compared "
        "with; release another arm",
        "候補：{arm} は比較の対照（手を加えていないモデル）です。別の方式を選んでください",
    ),
    "no control": Texts(
        "control: {control} isn't among the examined arms, so nothing can be compared; {again}",
        "対照：{control} が試験を受けた方式の中になく、比べられません。{again}",
    ),
    "other control": Texts(
        "control: the results compare with {compared}, the policy says {control}; {again}",
        "対照：結果は {compared} と比べていますが、方針では {control} です。{again}",
    ),
    # ---- sittings
    "sat": Texts(
        "exam {about}: {asked} questions answered, none failed; {refused} refused or silent, "
        "which count as wrong",
        "試験 {about}：{asked} 問すべてに回答。失敗なし。拒否・無回答 {refused} 問（誤答扱い）",
    ),
    "not sat": Texts(
        "exam {about}: {arm} didn't sit it; {again}",
        "試験 {about}：{arm} は受けていません。{again}",
    ),
    "sitting partial": Texts(
        "exam {about}: {arm} was asked {asked} questions only; {again} without --limit",
        "試験 {about}：{arm} が解いたのは {asked} 問だけです。--limit なしで {again}",
    ),
    "sitting errors": Texts(
        "exam {about}: {errors} of {asked} questions failed for {arm}, none may; {again}, which "
        "asks only these",
        "試験 {about}：{arm} は {asked} 問中 {errors} 問で失敗しました。許されるのは 0 問です。"
        "{again}。失敗した問題だけを解き直します",
    ),
    "sitting waiting": Texts(
        "exam {about}: {waiting} of {asked} answers of {arm} wait for somebody to judge them, "
        "none may; judge them and {again}",
        "試験 {about}：{arm} の {asked} 問中 {waiting} 問が採点待ちです。許されるのは 0 問です。"
        "採点を済ませて、{again}",
    ),
    "sitting incomplete": Texts(
        "exam {about}: {arm} answered {answered} of {asked} questions, all must be; {again}",
        "試験 {about}：{arm} の回答は {asked} 問中 {answered} 問です。全問が必要です。{again}",
    ),
    "sitting foreign": Texts(
        "exam {about}: this sitting of {arm} is of another exam or candidate; {again}",
        "試験 {about}：{arm} のこの受験は、別の試験か別の候補のものです。{again}",
    ),
    "required there": Texts("required exam {about}: sat", "必須の試験 {about}：受けています"),
    "required missing": Texts(
        "required exam {about}: it isn't among the exams; add it under exams: and {again}",
        "必須の試験 {about}：試験の中にありません。exams: に加えて、{again}",
    ),
    "not compared": Texts(
        "exam {about}: {arm} wasn't compared with the control; {again}",
        "試験 {about}：{arm} は対照と比べられていません。{again}",
    ),
    # ---- comparisons
    "gain pass": Texts(
        "exam {about}: gained {effect} points ({low} to {high}; {n} questions), more than {margin}",
        "試験 {about}：{effect} 点の向上（{low}〜{high}、{n} 問）。必要な {margin} 点を上回ります",
    ),
    "gain fail": Texts(
        "exam {about}: gained {effect} points ({low} to {high}; {n} questions), and more than "
        "{margin} are required; release another arm, or build a better one",
        "試験 {about}：向上は {effect} 点（{low}〜{high}、{n} 問）。{margin} 点を超える必要があり"
        "ます。別の方式を選ぶか、作り直してください",
    ),
    "gain inconclusive n": Texts(
        "exam {about}: gained {effect} points ({low} to {high}; {n} questions), which doesn't "
        "show more than {margin}; about {needed} questions would settle it: add some",
        "試験 {about}：向上は {effect} 点（{low}〜{high}、{n} 問）で、{margin} 点を超えるとは言え"
        "ません。およそ {needed} 問あれば判定できます。問題を増やしてください",
    ),
    "gain inconclusive margin": Texts(
        "exam {about}: gained {effect} points ({low} to {high}; {n} questions), which stands at "
        "the required {margin}; no practical number of questions would settle it: build a better "
        "arm",
        "試験 {about}：向上は {effect} 点（{low}〜{high}、{n} 問）で、必要な {margin} 点と並びま"
        "す。問題を増やしても判定できないため、より良い方式を作ってください",
    ),
    "loss pass": Texts(
        "exam {about}: changed by {effect} points ({low} to {high}; {n} questions), a loss "
        "within {margin}",
        "試験 {about}：変化は {effect} 点（{low}〜{high}、{n} 問）。低下は許容の {margin} 点以内"
        "です",
    ),
    "loss fail": Texts(
        "exam {about}: changed by {effect} points ({low} to {high}; {n} questions), and a loss "
        "of at most {margin} is allowed; train less, replay general text, or release another arm",
        "試験 {about}：変化は {effect} 点（{low}〜{high}、{n} 問）で、許容される低下は {margin} "
        "点までです。学習を減らす、一般の文章を混ぜる、別の方式を選ぶ、のいずれかをしてください",
    ),
    "loss inconclusive n": Texts(
        "exam {about}: changed by {effect} points ({low} to {high}; {n} questions), which "
        "doesn't exclude a loss of {margin}; about {needed} questions would settle it: add some",
        "試験 {about}：変化は {effect} 点（{low}〜{high}、{n} 問）で、{margin} 点の低下を否定でき"
        "ません。およそ {needed} 問あれば判定できます。問題を増やしてください",
    ),
    "loss inconclusive margin": Texts(
        "exam {about}: changed by {effect} points ({low} to {high}; {n} questions), which stands "
        "at the allowed loss of {margin}; no practical number of questions would settle it: "
        "train less",
        "試験 {about}：変化は {effect} 点（{low}〜{high}、{n} 問）で、許容される低下 {margin} 点"
        "と並びます。問題を増やしても判定できないため、学習を減らしてください",
    ),
    "untested": Texts(
        "exam {about}: nothing was tested ({why}); mend that and {again}",
        "試験 {about}：検定できていません（{why}）。これを直して、{again}",
    ),
    "no domain": Texts(
        "gain: no domain exam was sat, so no gain can be claimed; add an exam with role: domain",
        "向上：専門の試験がなく、向上を主張できません。role: domain の試験を加えてください",
    ),
    "no retention": Texts(
        "forgetting: no retention exam was sat, so nothing shows what was forgotten; add an exam "
        "with role: retention",
        "忘却：一般知識の試験がなく、何を忘れたか分かりません。role: retention の試験を加えてくだ"
        "さい",
    ),
    "no verdict": Texts(
        "verdict: there is none of {arm}; {again}",
        "判定：{arm} の判定がありません。{again}",
    ),
    "verdict foreign": Texts(
        "verdict: it is of another candidate than {arm} as it was examined; {again}",
        "判定：試験を受けた {arm} とは別の候補のものです。{again}",
    ),
    "verdict pass": Texts("verdict: pass", "判定：合格"),
    "verdict fail": Texts(
        "verdict: fail, and pass is required; the comparisons that fail say what to do",
        "判定：不合格。合格が必要です。対処は、不合格の比較の項にあります",
    ),
    "verdict inconclusive": Texts(
        "verdict: inconclusive, and pass is required; the comparisons that are inconclusive say "
        "how many questions would settle it",
        "判定：判定できず。合格が必要です。必要な問題数は、判定できなかった比較の項にあります",
    ),
    # ---- power, floors, citations, cost, speed
    "power enough": Texts(
        "exam {about}: could have shown a distance of {seen} points ({n} questions); at most "
        "{limit} is asked",
        "試験 {about}：{seen} 点の差を検出できます（{n} 問）。求められるのは {limit} 点以下です",
    ),
    "power small": Texts(
        "exam {about}: could have shown a distance of {seen} points only ({n} questions); at "
        "most {limit} is asked; about {needed} questions would do: add some",
        "試験 {about}：検出できる差は {seen} 点です（{n} 問）。{limit} 点以下が求められます。およ"
        "そ {needed} 問が必要です。問題を増やしてください",
    ),
    "floor pass": Texts(
        "exam {about}: scored {figure} ({low} to {high}; {n} questions), at least {limit}",
        "試験 {about}：得点 {figure}（{low}〜{high}、{n} 問）。{limit} 以上です",
    ),
    "floor fail": Texts(
        "exam {about}: scored {figure} ({low} to {high}; {n} questions), and at least {limit} is "
        "required; build a better arm",
        "試験 {about}：得点 {figure}（{low}〜{high}、{n} 問）。{limit} 以上が必要です。より良い方"
        "式を作ってください",
    ),
    "floor inconclusive": Texts(
        "exam {about}: scored {figure} ({low} to {high}; {n} questions), which doesn't show the "
        "required {limit}; add questions or build a better arm",
        "試験 {about}：得点 {figure}（{low}〜{high}、{n} 問）では、必要な {limit} 以上とは言えま"
        "せん。問題を増やすか、より良い方式を作ってください",
    ),
    "no figure": Texts(
        "exam {about}: it has no mean to hold against its floor; sit the whole exam: {again}",
        "試験 {about}：下限と比べる平均がありません。全問を解くために、{again}",
    ),
    "citation pass": Texts(
        "exam {about}: citation {kind} {figure} ({low} to {high}; {n} answers), at least {limit}",
        "試験 {about}：引用の{kind} {figure}（{low}〜{high}、{n} 件）。{limit} 以上です",
    ),
    "citation fail": Texts(
        "exam {about}: citation {kind} {figure} ({low} to {high}; {n} answers), and at least "
        "{limit} is required; improve the search, see tokka search-eval",
        "試験 {about}：引用の{kind} {figure}（{low}〜{high}、{n} 件）。{limit} 以上が必要です。検"
        "索を改善してください（tokka search-eval）",
    ),
    "citation inconclusive": Texts(
        "exam {about}: citation {kind} {figure} ({low} to {high}; {n} answers), which doesn't "
        "show the required {limit}; add questions that name their documents, or improve the "
        "search",
        "試験 {about}：引用の{kind} {figure}（{low}〜{high}、{n} 件）では、必要な {limit} 以上と"
        "は言えません。出典文書を示した問題を増やすか、検索を改善してください",
    ),
    "no citation": Texts(
        "citation {kind}: not measured; release an arm with retrieval, and add domain questions "
        "that name their documents (document_ids)",
        "引用の{kind}：測られていません。検索を使う方式を選び、出典文書（document_ids）を示した"
        "専門の問題を加えてください",
    ),
    "cost pass": Texts(
        "cost: {figure} USD per thousand answers, at most {limit}",
        "費用：千回答あたり {figure} USD。上限 {limit} 以内です",
    ),
    "cost fail": Texts(
        "cost: {figure} USD per thousand answers; at most {limit} is allowed. Use a smaller "
        "model, shorter prompts or fewer passages",
        "費用：千回答あたり {figure} USD。上限は {limit} です。モデルを小さくする、プロンプトを短"
        "くする、文書の数を減らす、のいずれかをしてください",
    ),
    "no cost": Texts(
        "cost: nothing says what an answer costs, and at most {limit} USD per thousand is "
        "allowed; {again}",
        "費用：回答の費用が分かりません（上限は千回答あたり {limit} USD）。{again}",
    ),
    "no price": Texts(
        "cost: no price is known, so at most {limit} USD per thousand answers can't be shown; "
        "set hourly_usd, or the prices under endpoint:, and {again}",
        "費用：価格が設定されておらず、千回答あたり {limit} USD 以下とは言えません。hourly_usd か"
        " endpoint: の価格を設定して、{again}",
    ),
    "speed pass": Texts(
        "speed: {figure} seconds per answer, at most {limit}",
        "速さ：1 回答 {figure} 秒。上限 {limit} 以内です",
    ),
    "speed fail": Texts(
        "speed: {figure} seconds per answer; at most {limit} is allowed. Answer faster: a "
        "smaller model, shorter prompts, fewer passages, or a faster machine",
        "速さ：1 回答 {figure} 秒。上限は {limit} 秒です。モデルを小さくする、プロンプトを短くす"
        "る、文書の数を減らす、速い機械を使う、のいずれかをしてください",
    ),
    "no speed": Texts(
        "speed: nothing says how long an answer takes, and at most {limit} seconds are allowed; "
        "{again}",
        "速さ：回答にかかる時間が分かりません（上限 {limit} 秒）。{again}",
    ),
}
