`timescale 1ns / 1ps
// Runs a layer as @BLOCKS blocks, counts cycles, checks every output.
// Before that it begins the layer and resets the engine in the middle.
module ternary_engine_bench;
    localparam OUTPUT_LANES = @OUTPUT_LANES;
    localparam INPUT_LANES = @INPUT_LANES;
    localparam WINDOW = @WINDOW;
    localparam ACT_BITS = @ACT_BITS;
    localparam SUM_BITS = @SUM_BITS;
    localparam LOAD_CYCLES = @LOAD_CYCLES;
    localparam SHIFT_BITS = @SHIFT_BITS;
    localparam ADDRESS_BITS = @ADDRESS_BITS;
    localparam UNITS = OUTPUT_LANES * INPUT_LANES * WINDOW * WINDOW;
    localparam LOAD_UNITS = (UNITS + LOAD_CYCLES - 1) / LOAD_CYCLES;
    localparam BLOCK_BITS = 6 * ADDRESS_BITS + SHIFT_BITS + 2;
    localparam BLOCKS = @BLOCKS;
    localparam COLUMNS = @COLUMNS;            // of the streams of all blocks
    localparam GROUPS = @GROUPS;              // strips times sets of output channels
    localparam RESULTS = @RESULTS;
    localparam ACCUMULATORS = @ACCUMULATORS;
    localparam COLUMN_STRIDE = @COLUMN_STRIDE;
    localparam ZERO_POINT = @ZERO_POINT;
    localparam EXPECTED_CYCLES = @EXPECTED_CYCLES;  // by the cost model
    localparam MOST_CLOCKS = 4 * EXPECTED_CYCLES + 1000;

    // Addresses are wider than the memories are deep. The clock has no other driver.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    /* verilator lint_off BLKSEQ */

    reg clock = 1'b0, reset = 1'b1, start = 1'b0;
    always #1 clock = ~clock;

    reg [BLOCK_BITS-1:0]                  blocks   [0:BLOCKS-1];
    reg [2*LOAD_UNITS-1:0]                weights  [0:BLOCKS*LOAD_CYCLES-1];
    reg [INPUT_LANES*WINDOW*ACT_BITS-1:0] columns  [0:COLUMNS-1];
    reg [OUTPUT_LANES*SUM_BITS-1:0]       biases   [0:GROUPS-1];
    reg [OUTPUT_LANES*SUM_BITS-1:0]       expected [0:RESULTS-1];
    reg [OUTPUT_LANES*SUM_BITS-1:0]       sums     [0:ACCUMULATORS-1];

    wire                            done, block_read, weight_read, column_read;
    wire                            sum_read, sum_first, position_valid, result_valid, result_last;
    wire [ADDRESS_BITS-1:0]         block_address, weight_address, column_address;
    wire [ADDRESS_BITS-1:0]         sum_group, sum_address, result_address;
    wire [OUTPUT_LANES*SUM_BITS-1:0] result_data;
    reg  [BLOCK_BITS-1:0]           block_data;
    reg  [2*LOAD_UNITS-1:0]         weight_data;
    reg  [INPUT_LANES*WINDOW*ACT_BITS-1:0] column_data;
    reg  [OUTPUT_LANES*SUM_BITS-1:0] sum_data;

    ternary_engine #(
        .OUTPUT_LANES(OUTPUT_LANES), .INPUT_LANES(INPUT_LANES), .WINDOW(WINDOW),
        .ACT_BITS(ACT_BITS), .SUM_BITS(SUM_BITS), .LOAD_CYCLES(LOAD_CYCLES),
        .SHIFT_BITS(SHIFT_BITS), .ADDRESS_BITS(ADDRESS_BITS)
    ) engine (
        .clock(clock), .reset(reset), .start(start),
        .block_count(BLOCKS[ADDRESS_BITS-1:0]),
        .column_stride(COLUMN_STRIDE[ADDRESS_BITS-1:0]),
        .zero_point(ZERO_POINT[ACT_BITS-1:0]),
        .done(done),
        .block_read(block_read), .block_address(block_address), .block_data(block_data),
        .weight_read(weight_read), .weight_address(weight_address), .weight_data(weight_data),
        .column_read(column_read), .column_address(column_address), .column_data(column_data),
        .sum_read(sum_read), .sum_first(sum_first), .sum_group(sum_group),
        .sum_address(sum_address), .sum_data(sum_data),
        .position_valid(position_valid),
        .result_valid(result_valid), .result_last(result_last),
        .result_address(result_address), .result_data(result_data)
    );

    integer results, wrong, elapsed, left;  // since start
    integer errors, cycles, clocks;
    reg     operand;   // one is at the engine for the first time after start
    reg     compared;  // this run
    reg     active;    // after a reset

    // The memories: data in the cycle after the read.
    always @(posedge clock) begin
        if (block_read) block_data <= blocks[block_address];
        if (weight_read) weight_data <= weights[weight_address];
        if (column_read) column_data <= columns[column_address];
        if (sum_read) sum_data <= sum_first ? biases[sum_group] : sums[sum_address];
        if (result_valid) sums[result_address] <= result_data;
    end

    // Results, and cycles from the first operand in to the last position, with a sum or without.
    always @(posedge clock) begin
        if (position_valid) left <= elapsed;
        if (elapsed != 0) elapsed <= elapsed + 1;
        else if (operand) elapsed <= 1;
        operand <= weight_read;
        if (result_valid && result_last && compared) begin
            if (results >= RESULTS || result_data !== expected[results]) begin
                wrong <= wrong + 1;
                $display("FAIL result %0d: %h, expected %h", results, result_data,
                         expected[results]);
            end
            results <= results + 1;
        end
        if (start) begin
            results <= 0;
            wrong <= 0;
            elapsed <= 0;
        end
    end

@VERDICT
    initial begin
        $readmemh("blocks.hex", blocks);
        $readmemh("weights.hex", weights);
        $readmemh("columns.hex", columns);
        $readmemh("biases.hex", biases);
        $readmemh("expected.hex", expected);
        compared = 1'b0;
        errors = 0;
        repeat (4) @(negedge clock);
        reset = 1'b0;
        @(negedge clock) start = 1'b1;
        @(negedge clock) start = 1'b0;
        repeat (EXPECTED_CYCLES / 2) @(negedge clock);
        reset = 1'b1;
        @(negedge clock) reset = 1'b0;
        active = 1'b0;
        repeat (8) begin
            if ((|{done, weight_read, column_read, sum_read, position_valid, result_valid})
                !== 1'b0) active = 1'b1;
            @(negedge clock);
        end
        if (active) begin
            errors = errors + 1;
            $display("FAIL it is active after a reset");
        end
        compared = 1'b1;
        @(negedge clock) start = 1'b1;
        @(negedge clock) start = 1'b0;
        for (clocks = 0; done !== 1'b1 && clocks < MOST_CLOCKS; clocks = clocks + 1)
            @(negedge clock);
        errors = errors + wrong;
        cycles = left;
        if (done !== 1'b1) begin
            errors = errors + 1;
            $display("FAIL no end after %0d clocks", clocks);
        end else if (results != RESULTS) begin
            errors = errors + 1;
            $display("FAIL %0d results, expected %0d", results, RESULTS);
        end
        finish;
    end
endmodule
