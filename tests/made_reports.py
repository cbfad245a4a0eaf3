"""Reports for tests, filled with plausible figures; names can be given to try hostile ones."""

from __future__ import annotations

from edgecompress.core.layers import Skip
from edgecompress.core.report import (
    CompressionReport,
    EvaluationReport,
    FactoredLayer,
    Fidelity,
    FileFact,
    GateResult,
    InspectionReport,
    LatencyReport,
    LayerFact,
    LayerResult,
    OutputNoise,
    Sensitivity,
    TargetAccuracy,
    Verification,
)
from edgecompress.core.simulation import SimulatedLayer, SimulationReport
from edgecompress.core.training_report import (
    DataFact,
    EpochRecord,
    ExportCheck,
    MemoryFactor,
    MemoryRow,
    MemoryTable,
    StoredNumbers,
    TrainedLayer,
    TrainingReport,
    TrainingScore,
)
from edgecompress.core.work import Cost, EnergySplit
from edgecompress.report.forms import Estimate


def file_fact(path: str = "model.onnx", size_bytes: int = 1_094_000) -> FileFact:
    return FileFact(path=path, sha256="0" * 64, size_bytes=size_bytes)


def fidelity(*, labels: bool = True) -> Fidelity:
    return Fidelity(
        samples=1000,
        relative_l2=0.0421,
        sqnr_db=27.5,
        top1_agreement=0.982,
        accuracy=0.916 if labels else None,
        reference_accuracy=0.921 if labels else None,
        source="test.npz (1,000 samples)",
    )


def cost(name: str = "conv1", cycles: float = 12_345.0, assumed: str = "") -> Cost:
    return Cost(
        name=name,
        compute_cycles=cycles,
        load_cycles=cycles / 2,
        store_cycles=cycles / 4,
        fill_cycles=64,
        total_cycles=cycles + 64,
        latency_s=(cycles + 64) / 200e6,
        bottleneck="compute",
        utilisation=0.87,
        weight_bytes=2304,
        activation_bytes=16384,
        energy_pj=None,
        assumed=assumed,
    )


def latency(
    target: str = "winocnn-zcu102-w4", names: tuple[str, ...] = ("conv1", "relu1", "fc")
) -> LatencyReport:
    costs = tuple(
        cost(name, 10_000.0 * (index + 1), "costed as element-wise" if index == 1 else "")
        for index, name in enumerate(names)
    )
    total = sum(item.latency_s for item in costs)
    return LatencyReport(
        model=file_fact(),
        target=target,
        target_source="WinoCNN (arXiv 2107.04244), table 3",
        model_error=0.1,
        model_error_source="against published layer times",
        latency_s=total,
        throughput_per_s=1 / total,
        total_cycles=sum(item.total_cycles for item in costs),
        energy_pj=2.5e9,
        energy=EnergySplit(mac_pj=1e9, on_chip_pj=0.5e9, dram_pj=0.75e9, static_pj=0.25e9),
        macs=40_551_040,
        moved_bytes=2_000_000.0,
        bound_s=total / 2,
        sensitivity=tuple(
            Sensitivity(factor=factor, latency_s=total / factor) for factor in (0.8, 0.9, 1.1)
        ),
        peak_activation_bytes=65_536.0,
        peak_operator=names[-1],
        live_bytes=tuple(65_536.0 for _ in costs),
        on_chip_bytes=1 << 20,
        factored=(
            FactoredLayer(
                name=names[-1],
                operators=3,
                dense_s=3e-5,
                memory_s=2e-5,
                fused_s=1.5e-5,
                kept_bytes=4096.0,
                fused=True,
            ),
        ),
        resources={"dsp": 2344, "bram18": 1584, "lut": 0},
        part="xczu9eg",
        costs=costs,
        op_types=tuple("Conv" for _ in costs),
        assumptions=("Relu is costed as element-wise",),
        notes=("images come in pairs",),
    )


def layer(name: str = "stage1.0.conv1") -> LayerResult:
    return LayerResult(
        name=name,
        action="decomposed+quantized",
        format="tucker2",
        ranks=(8, 8),
        grid="ternary",
        method="hessian",
        parameters_before=2304,
        parameters_after=832,
        macs_before=2_359_296,
        macs_after=851_968,
        storage_bits_after=1500,
        relative_error=0.0312,
    )


def compression(
    names: tuple[str, ...] = ("stage1.0.conv1", "stage1.0.conv2"),
    gates: tuple[GateResult, ...] = (),
    *,
    labels: bool = True,
) -> CompressionReport:
    kept = LayerResult(
        name="fc" if names[0] == "stage1.0.conv1" else names[0],
        action="kept",
        parameters_before=640,
        parameters_after=640,
        macs_before=640,
        macs_after=640,
        storage_bits_after=20480,
        reason="packing would cost bytes",
    )
    return CompressionReport(
        command="compress",
        input=file_fact("models/resnet20.onnx"),
        output=file_fact("out/small.onnx", 142_300),
        layers=(*(layer(name) for name in names), kept),
        skips=(
            Skip("conv_a", "grouped convolution (group=32)", 288),
            Skip(names[-1], "grouped convolution (group=32)", 100),
            Skip("table", "not used by a layer", 10),
        ),
        parameters_before=269_722,
        parameters_after=140_010,
        macs_before=40_551_040,
        macs_after=20_000_000,
        verification=Verification(
            checker=True,
            optimized_relative_l2=1.2e-6,
            optimized_top1_agreement=1.0,
            samples=16,
            fidelity=fidelity(labels=labels),
        ),
        latency_before=(latency("systolic-ws-32"), latency("winocnn-zcu102-w4")),
        latency_after=(latency("systolic-ws-32", names), latency("winocnn-zcu102-w4", names)),
        gates=gates,
        warnings=("calibrated on random data (seed 0): accuracy is not meaningful",),
        versions={"edgecompress": "0.1.0", "onnxruntime": "1.31.1"},
        settings={"bits": "ternary", "method": "hessian"},
        seed=0,
    )


def gate(*, met: bool = True) -> GateResult:
    return GateResult(
        name="max-size", limit=150_000 if met else 100_000, value=142_300, unit="bytes", met=met
    )


def evaluation(
    gates: tuple[GateResult, ...] = (), *, reference: bool = True, labels: bool = True
) -> EvaluationReport:
    return EvaluationReport(
        model=file_fact("small.onnx", 142_300),
        reference=file_fact() if reference else None,
        samples=1000,
        data_source="test.npz",
        accuracy=0.916 if labels else None,
        reference_accuracy=0.921 if reference and labels else None,
        fidelity=fidelity(labels=labels) if reference else None,
        latency_ratio=0.61 if reference else None,
        latency_s=0.61e-3,
        reference_latency_s=1e-3 if reference else None,
        gates=gates,
        on_target=on_target(labels=labels) if reference else None,
    )


def on_target(*, labels: bool = True) -> TargetAccuracy:
    return TargetAccuracy(
        target="winocnn-zcu102-w6",
        truncates=True,
        layers=("conv1", "conv2"),
        fidelity=fidelity(labels=labels),
        outputs=(OutputNoise(name="logits", snr_db=24.5),),
        skips=(Skip("conv3", "its weight is stored as floats", 288),),
        assumed="scale factors of the layers are chosen here",
    )


def estimate(gates: tuple[GateResult, ...] = (), names: tuple[str, ...] = ("conv1",)) -> Estimate:
    return Estimate((latency("systolic-ws-32", names), latency(names=names)), gates)


def inspection(name: str = "conv1") -> InspectionReport:
    fact = LayerFact(
        name=name,
        kind="Conv",
        weight_shape=(16, 3, 3, 3),
        input_shape=(None, 3, 32, 32),
        output_shape=(None, 16, 32, 32),
        macs=442_368,
        parameters=432,
        weight_bits=32,
        storage_bits=13_824,
        note="weight is shared",
    )
    return InspectionReport(
        model=file_fact(),
        opset=21,
        ir_version=10,
        producer="pytorch 2.13",
        inputs={name: "float32[?,3,32,32]"},
        outputs={"logits": "float32[?,10]"},
        nodes={"Conv": 19, "Relu": 19, name: 1},
        layers=(fact,),
        skips=(Skip(name, "inside a loop body", 12),),
        parameters=269_722,
        macs=None,
    )


def simulation(
    names: tuple[str, ...] = ("conv1", "fc"), *, agrees: bool = True, snr_db: float | None = None
) -> SimulationReport:
    layers = tuple(
        SimulatedLayer(
            name=name,
            op_type="Conv",
            groups=1 + index,
            rows=64,
            inner=288,
            columns=48,
            all_rows=1024,
            input_bits=8,
            weight_bits=5,
            stored_bits=4,
            input_quantized_here=index == 1,
            multiplications=64 * 288 * 48,
            cycles=2844,
            predicted_cycles=2844.0 if agrees else 2850.5,
            cycles_agree=agrees,
            outputs_agree=agrees or index == 0,
            snr_db=snr_db,
        )
        for index, name in enumerate(names)
    )
    return SimulationReport(
        model=file_fact(),
        target="systolic-ws-32",
        family="systolic_ws",
        target_source="a round design point",
        samples=1,
        data_source="test.npz",
        row_limit=64,
        layers=layers,
        skips=(Skip(names[0], "product of two activations: no weight to read", 0),),
        agrees=agrees,
        notes=("cycles of the array, memory not counted",),
    )


def memory_table(batch: int, *, stored: bool = True) -> MemoryTable:
    """Dense 407,050 parameters with Adam; a thirtieth of them at 4 bits."""
    activations = batch * 5_000.0
    kinds = (
        ("parameters", 1_628_200.0, 54_000.0, 6_750.0),
        ("gradients", 1_628_200.0, 54_000.0, 27_000.0),
        ("optimizer state", 3_256_400.0, 108_000.0, 108_000.0),
        ("model", 6_512_800.0, 216_000.0, 141_750.0),
        ("activations", activations, activations * 0.6, activations * 0.2),
        ("total", 6_512_800.0 + activations, 216_000.0 + activations * 0.6, 141_750.0),
        ("peak", 7_000_000.0 + activations, 260_000.0 + activations * 0.6, 180_000.0),
    )
    return MemoryTable(
        batch=batch,
        rows=tuple(
            MemoryRow(
                name=name,
                dense_bytes=dense,
                ours_bytes=ours,
                dense_measured_bytes=dense,
                ours_measured_bytes=ours * 1.01,
                stored_bytes=bits if stored else None,
                factor=dense / (bits if stored else ours),
            )
            for name, dense, ours, bits in kinds
        ),
    )


def training(
    names: tuple[str, ...] = ("1", "3"),
    gates: tuple[GateResult, ...] = (),
    *,
    labels: bool = True,
    precise: bool = True,
) -> TrainingReport:
    history = tuple(
        EpochRecord(
            epoch=epoch,
            loss=1.2 / epoch,
            validation_loss=1.3 / epoch if labels else None,
            score=0.9 - 0.3 / epoch if labels else None,
            learning_rate=2e-3 * (1 - epoch / 40),
            parameters=23_000 - 300 * epoch,
            ranks={name: (max(3, 20 - epoch), 16, 8) for name in names},
            cuts=1,
            memory_bytes=16 * (23_000 - 300 * epoch),
            elapsed_s=2.5 * epoch,
        )
        for epoch in range(1, 31)
    )
    layers = tuple(
        TrainedLayer(
            name=name,
            kind="linear",
            format="ttm",
            folding="28x16 by 28x32",
            ranks_start=(20, 16, 8),
            ranks_end=(3, 16, 8),
            parameters_dense=401_408,
            parameters_start=26_880,
            parameters_end=12_400,
        )
        for name in names
    )
    kept = TrainedLayer(
        name="head",
        kind="linear",
        parameters_dense=5_120,
        parameters_start=5_120,
        parameters_end=5_120,
        reason="its factors would save 4 %",
    )
    score = TrainingScore(
        data="test", network="trained", metric="accuracy", value=0.8814, samples=10_000
    )
    return TrainingReport(
        network="mlp",
        task="classification",
        start=None,
        output=file_fact("small.onnx", 58_300),
        data=DataFact(source="train-images.gz", sha256="1" * 64, samples=60_000),
        test=DataFact(source="t10k-images.gz", sha256="2" * 64, samples=10_000) if labels else None,
        training_samples=54_000,
        validation_samples=6_000,
        layers=(*layers, kept),
        skips=(Skip(names[0], "biases stay as they are", 522),),
        parameters_dense=407_050,
        parameters_start=33_000,
        parameters_end=13_400,
        parameters_target=13_568,
        storage_bits=13_400 * 4.2 if precise else 13_400 * 32,
        scores=(score,) if labels else (),
        batch=64,
        memory=tuple(memory_table(batch, stored=precise) for batch in (1, 16, 64)),
        factors=(
            MemoryFactor(part="ranks found while training", factor=30.4, of="parameters"),
            MemoryFactor(part="factors of 4 bits", factor=8.0, of="parameters"),
        ),
        stored=(
            StoredNumbers(name="factors", numbers=12_878, bits=4, size_bytes=6_439, note="scaled"),
        )
        if precise
        else (),
        history=history,
        score_name="accuracy",
        best_epoch=27,
        epochs_asked=40,
        check=ExportCheck(
            checker=True,
            relative_l2=2.1e-7,
            optimized_relative_l2=1.1e-7,
            top1_agreement=1.0,
            samples=16,
        ),
        device="cpu",
        elapsed_s=81.3,
        gates=gates,
        warnings=("the data hold 10 % of one class",),
        assumptions=("10 % of the data are held back",),
        notes=("activations are 8 bits",),
        versions={"edgecompress": "0.1.0", "torch": "2.13.0"},
        settings={"arch": "mlp", "format": "ttm"},
        seed=0,
    )
