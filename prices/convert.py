"""Makes prices.json beside this file from the published price list `genai-prices` (see README.md).

Prices leave here as integers: nano-dollars per million tokens, or nano-dollars a call. Whatever this file does not
understand stops it: a new kind of clause, constraint or look-ahead, or a price that is no whole number of nano-dollars.
"""

import json
import pathlib
import re
import re._constants as op
import re._parser as regex_parser
from decimal import Decimal
from importlib.metadata import version

from genai_prices import types
from genai_prices.data import providers

HERE = pathlib.Path(__file__).parent

# Our key for each price of the package that spans carry a count for. Images, searches and hours are left out: no span
# says how many there were. `per_call` comes per thousand requests.
CARRIED = {
    'input_mtok': 'input',
    'output_mtok': 'output',
    'cache_read_mtok': 'cached_input',
    'cache_write_mtok': 'cache_write',
    'cache_write_1h_mtok': 'cache_write_1h',
    'input_audio_mtok': 'audio_input',
    'cache_audio_read_mtok': 'cached_audio',
    'output_reasoning_mtok': 'reasoning',
    'output_audio_mtok': 'audio_output',
    'requests_kcount': 'per_call',
}

# Prices that are noise of somebody's floating point (0.18000000000000002) or a cut third (0.0833333333333333). They
# are taken to the nearest nano-dollar per million tokens; any other inexact price is a reason to stop and look.
ROUNDED = {
    Decimal(text)
    for text in """0.18000000000000002 0.13999999999999999 0.27999999999999997 1.0399999999999998 0.0833333333333333
    0.08333333333333334 0.04166666666666665 0.0416666666666667 0.041666666666666664""".split()
}

# What spans call the providers. Case, spaces, `-` and `_` do not count; a name that is not here is cut at its first dot
# and tried again, unless it starts with one of WHOLE. The package's own "name contains" rules are not used: they would
# give `azure.ai.openai` and `my-openai-clone` the prices of OpenAI.
WHOLE = ['aws.', 'az.', 'azure.ai.', 'gcp.', 'ibm.']
NAMES = {
    'arcee': ['arcee_ai'],
    'aws': ['aws.bedrock', 'aws_bedrock', 'bedrock', 'amazon_bedrock', 'bedrock_converse'],
    'azure': [
        'azure.ai.openai', 'az.ai.openai', 'azure.ai.inference', 'az.ai.inference', 'azure_openai', 'azure_ai',
        'az.ai.agents', 'azure.ai.agents', 'azure.ai.foundry', 'microsoft.foundry', 'azure_ai_foundry',
    ],
    'cloudflare': ['workers_ai', 'cloudflare_workers_ai'],
    'cohere': ['cohere_chat'],
    'fireworks': ['fireworks_ai'],
    'github-copilot': ['copilot'],
    'google': [
        'gcp.vertex_ai', 'vertex_ai', 'vertex', 'google_vertex', 'google_vertex_ai', 'gcp.gemini', 'gemini',
        'gcp.vertex.agent', 'gcp.gen_ai', 'google_genai', 'google_generative_ai', 'google_gla', 'google_ai',
    ],
    'minimax': ['minimax_ai'],
    'mistral': ['mistral_ai'],
    'moonshotai': ['moonshot', 'moonshot_ai'],
    'novita': ['novita_ai'],
    'ovhcloud': ['ovh'],
    'perplexity': ['perplexity_ai', 'pplx'],
    'together': ['together_ai'],
    'voyageai': ['voyage'],
    'x-ai': ['x_ai', 'grok'],
    'zai': ['z.ai'],
    'zhipuai': ['zhipu'],
}

# Providers that exist, and servers that people run themselves, which the package has no prices for. A call of one of
# these gets nobody else's price; every other name that is not known here is taken for that of a framework.
ELSEWHERE = [
    'aleph_alpha', 'alibaba', 'alibaba_cloud', 'anyscale', 'dashscope', 'deepinfra', 'friendliai', 'hugging_face',
    'huggingface', 'hyperbolic', 'lambda', 'llama.cpp', 'llama_cpp', 'llamafile', 'lm_studio', 'lmstudio', 'local_ai',
    'localai', 'nebius', 'nvidia', 'nvidia_nim', 'ollama', 'replicate', 'runpod', 'sagemaker', 'sagemaker_chat',
    'sambanova', 'sglang', 'snowflake', 'tgi', 'triton', 'vllm', 'hosted_vllm', 'watsonx', 'xinference',
]

# Hosts of the providers beside those that the package tells by `api_pattern`. `*` is any text that is not empty.
HOSTS = {
    'aws': [
        'bedrock-runtime-fips.*.amazonaws.com', 'bedrock-runtime.*.amazonaws.com.cn', '*.bedrock-runtime.*.amazonaws.com',
        'bedrock-runtime.*.api.aws', 'bedrock-mantle.*.api.aws',
    ],
    'azure': [
        '*.openai.azure.us', '*.openai.azure.cn', '*.*.inference.ai.azure.com', '*.models.ai.azure.com',
    ],
    'github-copilot': ['*.githubcopilot.com'],
    'mistral': ['codestral.mistral.ai'],
    'novita': ['api.novita.com'],
    'openai': ['*.api.openai.com'],
    'together': ['api.together.ai'],
    'x-ai': ['*.api.x.ai'],
}
# The package tells these apart by the path, which spans do not have: at such a host the name decides.
BY_PATH = re.compile('huggingface_.*|openai-decisions')

# The two look-aheads of the package, as clauses on lower-case text: "no part `-tts`" and "no provider before a slash".
NOT_SPEECH = '^(?!.*-[tT][tT][sS](?:$|-))'
NO_SLASH = '^(?![^/]+/)'


def nano(price):
    exact = price * 10**9
    whole = exact.to_integral_value()
    if exact != whole and price not in ROUNDED:
        raise SystemExit(f'price {price} is no whole number of nano-dollars')
    return int(whole)


def rate(key, price):
    if key == 'requests_kcount':
        return nano(price / 1000)  # a tiered price has no such division: it stops here
    if isinstance(price, types.TieredPrices):
        return {'base': nano(price.base), 'over': [[tier.start, nano(tier.price)] for tier in price.tiers]}
    return nano(price)


def rates(prices):
    stated = {key: price for key, price in vars(prices).items() if price is not None}
    return {ours: rate(key, stated[key]) for key, ours in CARRIED.items() if key in stated}


def constraint(limit):
    match limit:
        case None:
            return {}
        case types.StartDateConstraint():
            return {'from': limit.start_date.isoformat()}
        case types.TimeOfDateConstraint() if not limit.start_time.utcoffset() and not limit.end_time.utcoffset():
            return {'between': [time.strftime('%H:%M:%S') for time in (limit.start_time, limit.end_time)]}
    raise SystemExit(f'unknown constraint {limit}')


def templates(parsed):
    """Every text that the parsed regex matches, a digit as `#`; `$` as the character itself."""
    texts = ['']
    for kind, argument in parsed:
        texts = [text + more for text in texts for more in step(kind, argument)]
    return texts


def step(kind, argument):
    if kind is op.LITERAL:
        assert chr(argument) not in '#*$', 'a literal that means something in `like`'
        return [chr(argument)]
    if kind is op.AT:
        return {op.AT_BEGINNING: [''], op.AT_END: ['$']}[argument]
    if kind is op.IN:
        return ['#' if part == (op.CATEGORY, op.CATEGORY_DIGIT) else step(*part)[0] for part in argument]
    if kind is op.MAX_REPEAT:
        least, most, body = argument
        assert int(most) <= 8, 'a repeat without a small end'
        return [text for times in range(least, int(most) + 1) for text in templates(list(body) * times)]
    if kind is op.SUBPATTERN:
        return templates(argument[3])
    if kind is op.BRANCH:
        return [text for branch in argument[1] for text in templates(branch)]
    raise SystemExit(f'unknown regex part {kind}')


def regex(pattern):
    if pattern == NOT_SPEECH:
        return {'not': {'any_of': [{'ends_with': '-tts'}, {'contains': '-tts-'}]}}
    if pattern.startswith(NO_SLASH):
        return {'all_of': [{'not': {'contains': '/'}}, regex('^' + pattern.removeprefix(NO_SLASH))]}
    assert pattern.startswith('^'), pattern
    clauses = []
    for text in templates(regex_parser.parse(pattern)):
        assert text == text.lower(), pattern
        if text.endswith('$'):
            clauses.append({'like' if '#' in text else 'equals': text[:-1]})
        else:
            clauses.append({'like': text + '*'} if '#' in text else {'starts_with': text})
    return clauses[0] if len(clauses) == 1 else {'any_of': clauses}


def clause(match):
    match match:
        case types.ClauseOr():
            parts = [clause(part) for part in match.or_]
            parts = [part for place, part in enumerate(parts) if part not in parts[:place]]
            return parts[0] if len(parts) == 1 else {'any_of': parts}
        case types.ClauseAnd():
            return {'all_of': [clause(part) for part in match.and_]}
        case types.ClauseRegex():
            return regex(match.regex)
    (kind, text), = vars(match).items()
    assert kind in ('equals', 'starts_with', 'ends_with', 'contains'), match
    return {kind: text.lower()}


def hosts(pattern):
    """The hosts that an `api_pattern` means, the rest of the URL left out."""
    found = []
    for text in host_sequence(regex_parser.parse(pattern)):
        host = text.removeprefix('https://').removeprefix('http://').split('/')[0]
        host += '*' if host.endswith('.') else ''
        assert re.fullmatch(r'[a-z0-9.*-]+', host) and '**' not in host, (pattern, host)
        found.append(host)
    return list(dict.fromkeys(found))


def host_step(kind, argument):
    match kind:
        case op.LITERAL:
            return [chr(argument)]
        case op.AT:
            return ['/']
        case op.SUBPATTERN | op.BRANCH:
            parts = [argument[3]] if kind is op.SUBPATTERN else argument[1]
            return [text for part in parts for text in host_sequence(part)]
        case op.MAX_REPEAT if argument[1] == 1:
            return ['', *host_sequence(argument[2])]
        case op.MAX_REPEAT:
            return ['*']  # some characters, of whatever kind
    raise SystemExit(f'unknown part of a host {kind}')


def host_sequence(parsed):
    texts = ['']
    for kind, argument in parsed:
        texts = [text + more for text in texts for more in host_step(kind, argument)]
    return texts


def model(info):
    line = {'id': info.id}
    matcher = clause(info.match)
    if matcher != {'equals': info.id.lower()}:
        line['match'] = matcher
    dated = info.prices if isinstance(info.prices, list) else [types.ConditionalPrice(prices=info.prices)]
    line['prices'] = [constraint(price.constraint) | rates(price.prices) for price in dated]
    if not any(rates(price.prices) for price in dated):
        line['prices'] = []  # free, by subscription, or by something that spans do not count
    variants = [
        {'service_tier': variant.when['service_tier']} | constraint(variant.constraint) | rates(variant.prices)
        for variant in info.price_variants or []
        if set(variant.when) == {'service_tier'} and rates(variant.prices)
    ]
    return line | ({'variants': variants} if variants else {})


def text(value):
    return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


def provider(source):
    head = {'id': source.id}
    if source.id in NAMES:
        head['names'] = NAMES[source.id]
    if not BY_PATH.fullmatch(source.id):
        head['hosts'] = list(dict.fromkeys(hosts(source.api_pattern) + HOSTS.get(source.id, [])))
    if source.model_match is not None:
        head['model_match'] = clause(source.model_match)
    if source.fallback_model_providers:
        head['fallback'] = source.fallback_model_providers
    models = ',\n'.join(text(model(info)) for info in source.models)
    return f'{text(head)[:-1]},"models":[\n{models}\n]}}'


def main():
    unknown = (set(NAMES) | set(HOSTS)) - {source.id for source in providers}
    assert not unknown, f'names for providers that are gone: {unknown}'
    head = {
        'source': 'genai-prices',
        'version': version('genai-prices'),
        'licence': 'MIT, Copyright (c) Pydantic Services Inc. 2025 to present; see NOTICE',
        'unit': 'nano-dollars per million tokens; per_call: nano-dollars a call',
        'whole_names': WHOLE,
        'elsewhere': ELSEWHERE,
    }
    lines = ',\n'.join(f'{text(key)}:{text(value)}' for key, value in head.items())
    body = ',\n'.join(provider(source) for source in providers)
    (HERE / 'prices.json').write_text(f'{{{lines},\n"providers":[\n{body}\n]}}\n', encoding='utf-8')


if __name__ == '__main__':
    main()
