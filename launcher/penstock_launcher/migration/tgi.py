"""TGI's command line (3.3): the names are Penstock's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock_launcher.migration.rows import Limit, Row, Server, image, same
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED

SAME = (
    "--model-id --revision --validation-workers --sharded --num-shard --quantize --dtype "
    "--kv-cache-dtype --max-concurrent-requests --max-best-of --max-stop-sequences "
    "--max-top-n-tokens --max-input-tokens --max-input-length --max-total-tokens "
    "--waiting-served-ratio --max-batch-prefill-tokens --max-batch-total-tokens "
    "--max-waiting-tokens --max-batch-size --cuda-graphs --hostname --port --prometheus-port "
    "--shard-uds-path --master-addr --master-port --huggingface-hub-cache "
    "--weights-cache-override --rope-scaling --rope-factor --cuda-memory-fraction --json-output "
    "--otlp-endpoint "
    "--otlp-service-name --cors-allow-origin --api-key --watermark-gamma --watermark-delta "
    "--tokenizer-config-path --disable-grammar-support --env --max-client-batch-size "
    "--payload-limit --graceful-termination-timeout"
)
NOTES = {
    "--max-batch-total-tokens": "counts: TGI takes what memory holds, whatever it says",
    "--prometheus-port": "is listened on; /metrics is on the main port in any case",
    "--api-key": "is compared as it is written, capitals and all",
    "--disable-grammar-support": "also lets calls of tools be as the model writes them",
    "--kv-cache-dtype": "takes the scales of the checkpoint, where it has any",
}


def _unsupported() -> Iterable[Row]:
    for one in UNSUPPORTED:
        harmless = not one.takes_value and "true" in one.harmless
        yield Row(
            (one.flag,),
            takes_value=one.takes_value,
            neutral=one.harmless,
            served=harmless or one.name == "usage-stats",
            note=one.reason,
        )


SERVER = Server(
    name="TGI",
    image=image("text-generation-inference"),
    programs=(re.compile(r"(?:\S*/)?text-generation-launcher"),),
    rows=(*same(SAME, NOTES), *_unsupported()),
    added={},
    defaults={
        "max_batch_prefill_tokens": Limit(
            "by the GPU and the model, else 4096", "4096; on a CPU 1024", "4096"
        ),
        "cuda_graphs": Limit("1,2,4,8,16,32", "some 20 sizes", "1,2,4,8,16,32"),
        "max_batch_size": Limit(
            "as many as the KV cache holds",
            "max-concurrent-requests, at most 256; on a CPU 64",
            "1000000",
        ),
        "max_connections_per_client": Limit("no bound", "1024", "1000000"),
        "step_timeout": Limit("none", "60 s for a step of the shards", "86400"),
        "kv_block_size": Limit("1, 16 or 256, by the kernel", "64; on a CPU 16", "16"),
        "http_processes": Limit("one process", "beside GPUs one for each 5 cores, 2 to 4", "0"),
    },
    variables={},
    without_meaning=re.compile("|".join(TGI_VARIABLES)),
    cache="/data",
)
