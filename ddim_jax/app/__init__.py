"""What a page in the browser shows of a model; ``ddim play`` serves it.

    Settings -> walk -> Moment, ...    what it computes: `settings`, `walking`, `tasks`, `uploads`
    Blocks                             how it looks: `layout`, the tabs, `controls`, `widgets`, `views`

Only the latter need Gradio, which the extra ``app`` brings.
"""
